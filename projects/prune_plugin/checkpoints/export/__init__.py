"""Export of models for other programs: Hugging Face folders, ONNX, torch.export."""

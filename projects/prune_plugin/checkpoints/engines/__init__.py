"""Other engines than PyTorch: files that they run in the place of checkpoints, and their clocks."""

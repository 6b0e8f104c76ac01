"""Other engines than PyTorch: files that they run in the place of checkpoints, and their clocks."""

from . import onnx_network, openvino_network

__all__ = ['onnx_network', 'openvino_network']

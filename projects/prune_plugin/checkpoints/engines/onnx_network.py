"""ONNX files in the place of checkpoints, run by onnxruntime."""

import math
import os
from pathlib import Path

import numpy as np

from ...common.errors import UserError
from ...common.registry import ENGINE_FILES
from ..export.onnx_export import open_session
from ..export.tracing import describe_error
from .network import FileNetwork

#: How names of constant tensors end that onnxruntime's quantisation adds.
SCALES = ('_scale', '_zero_point')


@ENGINE_FILES.register_module(name='.onnx')
class OnnxNetwork(FileNetwork):
    """What an ONNX file computes; constants that scale 8-bit ones aren't counted as parameters.

    Args:
        path: The file.
        threads: CPU threads; None: as many as PyTorch has.

    Raises:
        UserError: there is no onnxruntime, or it can't read the file.
    """

    structure = 'onnx'

    def __init__(self, path: str | os.PathLike, threads: int | None = None):
        super().__init__()
        try:
            import onnx
            import onnxruntime  # noqa: F401  open_session needs it
        except ImportError as error:
            raise UserError(
                f'checkpoint {path} needs onnxruntime; install it with pip install -e ".[export]"'
            ) from error
        data = Path(path).read_bytes()
        try:
            graph = onnx.load_model_from_string(data).graph
        except Exception as error:  # protobuf's errors have no common base class
            raise UserError(
                f'checkpoint {path} is no ONNX file: {describe_error(error)}'
            ) from error
        weights = [t for t in graph.initializer if not t.name.endswith(SCALES)]
        self.params = sum(math.prod(tensor.dims) for tensor in weights)
        self.weight_bytes = sum(len(tensor.raw_data) for tensor in graph.initializer)
        self.session = open_session(data, str(path), threads)
        self.inputs = [node.name for node in self.session.get_inputs()]

    def run(self, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        """See :class:`FileNetwork`."""
        return self.session.run(None, arrays)

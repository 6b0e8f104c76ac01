"""OpenVINO's own files in the place of checkpoints: ``.xml`` with the weights in a ``.bin`` beside it."""

import os
from pathlib import Path

import numpy as np
import torch

from ...common.errors import UserError
from ...common.registry import ENGINE_FILES
from ..export.tracing import describe_error
from .network import FileNetwork


@ENGINE_FILES.register_module(name='.xml')
class OpenvinoNetwork(FileNetwork):
    """What a model in OpenVINO's format computes, on the CPU.

    Args:
        path: The ``.xml`` file.
        threads: CPU threads; None: as many as PyTorch has.

    Raises:
        UserError: there is no OpenVINO, or it can't read the file.
    """

    structure = 'openvino'

    def __init__(self, path: str | os.PathLike, threads: int | None = None):
        super().__init__()
        try:
            import openvino
        except ImportError as error:
            raise UserError(
                f'checkpoint {path} needs openvino; install it with pip install -e ".[openvino]"'
            ) from error
        core = openvino.Core()
        settings = {'INFERENCE_NUM_THREADS': threads or torch.get_num_threads()}
        try:
            graph = core.read_model(str(path))
            compiled = core.compile_model(graph, 'CPU', {**settings, 'PERFORMANCE_HINT': 'LATENCY'})
        except Exception as error:  # its errors have no common base class
            raise UserError(
                f'checkpoint {path} cannot be read by OpenVINO: {describe_error(error)}'
            ) from error
        constants = [op for op in graph.get_ops() if op.get_type_name() == 'Constant']
        self.params = sum(int(np.prod(op.get_output_shape(0))) for op in constants)
        weights = Path(path).with_suffix('.bin')
        self.weight_bytes = weights.stat().st_size if weights.is_file() else 0
        self.request = compiled.create_infer_request()
        self.inputs = [node.get_any_name() for node in compiled.inputs]

    def run(self, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        """See :class:`FileNetwork`."""
        return [array.copy() for array in self.request.infer(arrays).to_tuple()]

"""ONNX files in the place of checkpoints, run by onnxruntime."""

import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...common.errors import UserError
from ...common.model_interface import dummy_inputs_of, offers_dummy_inputs
from ...common.registry import ENGINE_FILES
from ..export.onnx_export import open_session
from ..export.tracing import describe_error, tensors_of

#: How names of constant tensors end that onnxruntime's quantisation adds.
SCALES = ('_scale', '_zero_point')


@torch.no_grad()
def shapes_of(model: nn.Module) -> list[tuple[int, ...]]:
    """Shapes of a model's outputs for its example; none where it has no example."""
    if not offers_dummy_inputs(model):
        return []
    return [tuple(tensor.shape) for tensor in tensors_of(model(**dummy_inputs_of(model, 1)))]


@ENGINE_FILES.register_module(name='.onnx')
class OnnxNetwork(nn.Module):
    """What an ONNX file computes, as a module without weights of its own.

    Args:
        path: The file.
        threads: CPU threads; None: as many as PyTorch has.

    Attributes:
        params: Numbers in the file's constant tensors, those that scale 8-bit ones aside.
        weight_bytes: Their size.

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
        # Says on which device it is, and counts nothing.
        self.anchor = nn.Parameter(torch.zeros(0), requires_grad=False)

    def enter(self, model: nn.Module) -> str | None:
        """Have a model use this network; why it doesn't fit, None if it does."""
        expected = shapes_of(model)
        model.use_network(self)  # type: ignore[operator]
        try:
            found = shapes_of(model)
        except Exception as error:  # onnxruntime's errors have no common base class
            return describe_error(error)
        return None if found == expected else f'it gives {found} where the model gives {expected}'

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """The outputs: one tensor, or a tuple of several."""
        given = {**dict(zip(self.inputs, args, strict=False)), **kwargs}
        arrays = {name: tensor.cpu().numpy() for name, tensor in given.items()}
        found = [torch.from_numpy(array) for array in self.session.run(None, arrays)]
        return found[0] if len(found) == 1 else tuple(found)

    def __deepcopy__(self, memo: dict) -> 'OnnxNetwork':
        """Itself: a session can't be copied, and nothing changes it."""
        return self

"""Files of other engines in the place of checkpoints: a config's model around a network that they run."""

import math
import os
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor, nn

from ...common.errors import UserError
from ...common.model_interface import dummy_inputs_of, offers_dummy_inputs, offers_engines
from ..export.formats import inner_model, model_class
from ..export.onnx_export import open_session
from ..export.tracing import describe_error, tensors_of
from ..model_loading import Loaded

#: How files end that an engine runs.
ENDINGS = ('.onnx',)
#: How names of constant tensors end that onnxruntime's quantisation adds.
SCALES = ('_scale', '_zero_point')


def is_engine_file(path: str | os.PathLike | None) -> bool:
    """Whether a checkpoint is a file for another engine."""
    return path is not None and Path(path).suffix in ENDINGS


def load_engine(cfg: Config, path: str | os.PathLike, threads: int | None = None) -> Loaded:
    """The config's model, whose network is a file of ONNX that onnxruntime runs on the CPU.

    Args:
        cfg: The dense config; its model's class has ``use_network``.
        path: The file.
        threads: CPU threads; None: as many as PyTorch has.

    Raises:
        UserError: onnxruntime isn't installed or can't read the file; the file is of another model; or the
            model's class can't be evaluated so.
    """
    check_engine(cfg, path)
    model = MODELS.build(inner_model(cfg)).eval()
    expected = shapes_of(model)
    model.use_network(OnnxNetwork(path, threads))
    try:
        found = shapes_of(model)
    except Exception as error:  # onnxruntime's errors have no common base class
        raise another(cfg, path, describe_error(error)) from error
    if found != expected:
        raise another(cfg, path, f'it gives {found} where the model gives {expected}')
    content = {'meta': {}, 'state_dict': {}, 'engine': 'onnxruntime'}
    return Loaded(model, content, None)


def check_engine(cfg: Config, path: str | os.PathLike) -> None:
    """Raise :class:`UserError` if the config's model can't be evaluated so; builds and reads nothing."""
    kind, of_model = model_class(cfg)
    if of_model is not None and not offers_engines(of_model):
        raise UserError(
            f'checkpoint {path}: a {kind} cannot be evaluated from an ONNX file; give a .pth file'
        )


def another(cfg: Config, path: str | os.PathLike, why: str) -> UserError:
    """The error to raise for a file of another model."""
    return UserError(
        f'checkpoint {path} belongs to another model than config {cfg.filename} ({why})'
    )


@torch.no_grad()
def shapes_of(model: nn.Module) -> list[tuple[int, ...]]:
    """Shapes of a model's outputs for its example; none where it has no example."""
    if not offers_dummy_inputs(model):
        return []
    return [tuple(tensor.shape) for tensor in tensors_of(model(**dummy_inputs_of(model, 1)))]


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

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """The outputs: one tensor, or a tuple of several."""
        given = {**dict(zip(self.inputs, args, strict=False)), **kwargs}
        arrays = {name: tensor.cpu().numpy() for name, tensor in given.items()}
        found = [torch.from_numpy(array) for array in self.session.run(None, arrays)]
        return found[0] if len(found) == 1 else tuple(found)

    def __deepcopy__(self, memo: dict) -> 'OnnxNetwork':
        """Itself: a session can't be copied, and nothing changes it."""
        return self

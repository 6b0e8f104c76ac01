"""Files of other engines in the place of checkpoints: a config's model around a network that they run."""

import os
from pathlib import Path
from typing import Protocol

from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from ...common.errors import UserError
from ...common.model_interface import engine_files_of
from ...common.registry import ENGINE_FILES
from ..export.formats import inner_model, model_class
from ..model_loading import Loaded


class EngineNetwork(Protocol):
    """What is registered in ``ENGINE_FILES``: a module that runs one file, made from path and CPU threads.

    Attributes:
        structure: Of such files, in ``compare.json``.
        params: Numbers in the file's weights.
        weight_bytes: Their size.
    """

    structure: str
    params: int
    weight_bytes: int

    def enter(self, model: nn.Module) -> str | None:
        """Take the place of a model's network; why it can't, None if it did."""


def is_engine_file(path: str | os.PathLike | None) -> bool:
    """Whether a checkpoint is a file for another engine."""
    return path is not None and Path(path).suffix in ENGINE_FILES.module_dict


def check_engine(cfg: Config, path: str | os.PathLike) -> None:
    """Raise :class:`UserError` if the config's model can't be evaluated so; builds and reads nothing."""
    kind, of_model = model_class(cfg)
    ending = Path(path).suffix
    if of_model is not None and ending not in engine_files_of(of_model):
        raise UserError(
            f'checkpoint {path}: a {kind} cannot be evaluated from a {ending} file; give a .pth file'
        )


def load_engine(cfg: Config, path: str | os.PathLike, threads: int | None = None) -> Loaded:
    """The config's model, whose network is a file that another engine runs on the CPU.

    Args:
        cfg: The dense config.
        path: The file.
        threads: CPU threads; None: as many as PyTorch has.

    Returns:
        The model; the content has the network itself as ``network``.

    Raises:
        UserError: the engine isn't installed or can't read the file; the file is of another model; or the
            model's class can't be evaluated so.
    """
    check_engine(cfg, path)
    network = ENGINE_FILES.module_dict[Path(path).suffix](path, threads)
    model = MODELS.build(inner_model(cfg)).eval()
    misfit = network.enter(model)
    if misfit:
        raise UserError(
            f'checkpoint {path} belongs to another model than config {cfg.filename} ({misfit})'
        )
    return Loaded(model, {'meta': {}, 'state_dict': {}, 'network': network}, None)

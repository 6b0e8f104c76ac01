"""``--save-hf``: a checkpoint as a folder that other programs read."""

import os
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from .distributed import on_rank_0
from .errors import UserError
from .loading import load_model


def check_free(folder: str | os.PathLike) -> Path:
    """The folder, if it is new or empty.

    Raises:
        UserError: it holds something, or is a file.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f'--save-hf {folder} is there already; name a new or an empty folder')
    return folder


def check_save_hf(cfg: Config, folder: str | os.PathLike | None) -> None:
    """Raise :class:`UserError` if the config's model can't be saved to ``folder``; None asks nothing.

    Args:
        cfg: The config; its model's class has to have a method ``save_hf(folder)``.
        folder: As on the command line.
    """
    if folder is None:
        return
    check_free(folder)
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    model = cfg.get('model') or {}
    while model.get('type') in ('SlimModel', 'LoraModel'):
        model = model.model
    kind = model.get('type')
    cls = MODELS.get(kind) if isinstance(kind, str) else kind
    if not hasattr(cls, 'save_hf'):
        raise UserError(f'--save-hf: {kind} is no Hugging Face model; leave the flag out')


def save_hf(cfg: Config, checkpoint: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Write the model of a checkpoint as a Hugging Face folder, on rank 0.

    Args:
        cfg: The (dense) config.
        checkpoint: Dense, weight-level pruned, or slim.
        folder: New or empty.
    """
    on_rank_0(lambda: load_model(cfg, str(checkpoint)).model.save_hf(folder))

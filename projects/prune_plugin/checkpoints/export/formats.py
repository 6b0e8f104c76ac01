"""``--save-hf``, ``--save-onnx``, ``--save-exported``: a checkpoint as what other programs read."""

import argparse
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ...common.distributed import on_rank_0
from ...common.errors import UserError
from ...common.model_interface import offers_dummy_inputs, offers_save_hf
from ..model_loading import load_model
from .onnx_export import check_packages, save_onnx
from .torch_export import save_exported

#: The flags of files with a traced forward pass, and how their names end.
ENDINGS = {'--save-onnx': '.onnx', '--save-exported': '.pt2'}


def check(cfg: Config, args: argparse.Namespace) -> None:
    """Raise :class:`UserError` if what the flags ask for can't be written, before any work.

    Args:
        cfg: The config.
        args: With the flags of :func:`.cli.add_export_arguments`.
    """
    check_save_hf(cfg, args.save_hf)
    if args.save_onnx:
        check_packages()
    check_file(cfg, args.save_onnx, '--save-onnx')
    check_file(cfg, args.save_exported, '--save-exported')


def save(
    cfg: Config,
    checkpoint: str | os.PathLike | None,
    args: argparse.Namespace,
    model: nn.Module | None = None,
) -> None:
    """Write what the flags ask for, on rank 0.

    Args:
        cfg: The (dense) config.
        checkpoint: Dense, weight-level pruned, or slim; None: the weights that the model names.
        args: With the flags of :func:`.cli.add_export_arguments`.
        model: The checkpoint's model, if it is at hand; it isn't to be used afterwards. None: the
            checkpoint is loaded.
    """
    path = None if checkpoint is None else str(checkpoint)
    shape = sample_shape(cfg)
    steps: list[Callable[[nn.Module], Any]] = []
    if args.save_hf:
        steps.append(lambda model: model.save_hf(args.save_hf))
    if args.save_onnx:
        steps.append(lambda model: save_onnx(model, args.save_onnx, shape))
    if args.save_exported:
        steps.append(lambda model: save_exported(model, args.save_exported, shape))

    def write() -> None:
        source = load_model(cfg, path).model if model is None else model.cpu().eval()
        for step in steps[:-1]:
            step(deepcopy(source))
        steps[-1](source)

    if steps:
        on_rank_0(write)


def check_free(folder: str | os.PathLike) -> Path:
    """The folder, if it is new or empty.

    Raises:
        UserError: it holds something, or is a file.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f'--save-hf {folder} is there already; name a new or an empty folder')
    return folder


def model_class(cfg: Config) -> tuple[str | None, Any]:
    """Name and class of the config's model, without what is wrapped around it; None if unknown."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    model = cfg.get('model') or {}
    while model.get('type') in ('SlimModel', 'LoraModel'):
        model = model['model']
    kind = model.get('type')
    return kind, MODELS.get(kind) if isinstance(kind, str) else kind


def check_save_hf(cfg: Config, folder: str | os.PathLike | None) -> None:
    """Raise :class:`UserError` if the config's model can't be saved to ``folder``; None asks nothing.

    Args:
        cfg: The config; its model's class has to have a method ``save_hf(folder)``.
        folder: As on the command line.
    """
    if folder is None:
        return
    check_free(folder)
    kind, cls = model_class(cfg)
    if not offers_save_hf(cls):
        raise UserError(f'--save-hf: {kind} is no Hugging Face model; leave the flag out')


def sample_shape(cfg: Config) -> tuple[int, ...] | None:
    """``prune_cfg.profile.input_shape``, for models without ``dummy_inputs``."""
    return ((cfg.get('prune_cfg') or {}).get('profile') or {}).get('input_shape')


def check_file(cfg: Config, path: str | os.PathLike | None, flag: str) -> None:
    """Raise :class:`UserError` if ``flag`` can't write ``path``; None asks nothing.

    Args:
        cfg: The config; its model's class has to have ``dummy_inputs``, or ``prune_cfg`` to say the shape
            of a sample.
        path: As on the command line.
        flag: One of ``ENDINGS``.
    """
    if path is None:
        return
    path = Path(path)
    if path.suffix != ENDINGS[flag]:
        raise UserError(f'{flag} {path} must be a file that ends in {ENDINGS[flag]}')
    if path.is_dir():
        raise UserError(f'{flag} {path} is a directory; name a file')
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f'{flag} {path} cannot be written; name a file in a directory that can')
    kind, cls = model_class(cfg)
    if not offers_dummy_inputs(cls) and sample_shape(cfg) is None:
        raise UserError(
            f'{flag} needs an example input, and {kind} has no dummy_inputs: set '
            'prune_cfg.profile.input_shape, e.g. (3, 224, 224)'
        )

"""``--save-hf``, ``--save-onnx``, ``--save-exported``: exporting a checkpoint for other programs."""

import argparse
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from ...common.distributed import on_rank_0
from ...common.errors import UserError
from ..model_loading import load_model
from .onnx_export import check_packages, save_onnx
from .torch_export import save_exported

#: Flags that write a traced forward pass, and the required file name extension.
EXTENSIONS = {'--save-onnx': '.onnx', '--save-exported': '.pt2'}


def check(cfg: Config, args: argparse.Namespace) -> None:
    """Raise :class:`UserError` if an export that the flags request can't be written; done before any work.

    Args:
        cfg: The config.
        args: With the flags of :func:`.cli.add_export_arguments`.
    """
    check_save_hf(cfg, args.save_hf)
    if args.save_onnx:
        check_packages()
    check_file(cfg, args.save_onnx, '--save-onnx')
    check_file(cfg, args.save_exported, '--save-exported')


def save(cfg: Config, checkpoint: str | os.PathLike | None, args: argparse.Namespace) -> None:
    """Write the exports that the flags request, on rank 0.

    Args:
        cfg: The (dense) config.
        checkpoint: Dense, weight-level pruned, or slim; None: the weights that the model names.
        args: With the flags of :func:`.cli.add_export_arguments`.
    """
    path = None if checkpoint is None else str(checkpoint)
    shape = sample_shape(cfg)

    def write() -> None:
        if args.save_hf:
            load_model(cfg, path).model.save_hf(args.save_hf)
        if args.save_onnx:
            save_onnx(load_model(cfg, path).model, args.save_onnx, shape)
        if args.save_exported:
            save_exported(load_model(cfg, path).model, args.save_exported, shape)

    if args.save_hf or args.save_onnx or args.save_exported:
        on_rank_0(write)


def check_free(folder: str | os.PathLike) -> Path:
    """Return ``folder`` if it doesn't exist or is empty.

    Raises:
        UserError: it isn't empty, or is a file.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f'--save-hf {folder} already exists; name a new or an empty folder')
    return folder


def model_class(cfg: Config) -> tuple[str | None, Any]:
    """Name and class of the config's model inside ``SlimModel`` and ``LoraModel``; None if unknown."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    model = cfg.get('model') or {}
    while model.get('type') in ('SlimModel', 'LoraModel'):
        model = model['model']
    kind = model.get('type')
    return kind, MODELS.get(kind) if isinstance(kind, str) else kind


def check_save_hf(cfg: Config, folder: str | os.PathLike | None) -> None:
    """Raise :class:`UserError` if the config's model can't be saved to ``folder`` with ``--save-hf``.

    Args:
        cfg: The config; its model's class must have a method ``save_hf(folder)``.
        folder: Value of the flag; None: nothing is checked.
    """
    if folder is None:
        return
    check_free(folder)
    kind, cls = model_class(cfg)
    if not hasattr(cls, 'save_hf'):
        raise UserError(f'--save-hf: {kind} is not a Hugging Face model; leave the flag out')


def sample_shape(cfg: Config) -> tuple[int, ...] | None:
    """``prune_cfg.profile.input_shape``: shape of one sample, for models without ``dummy_inputs``."""
    return ((cfg.get('prune_cfg') or {}).get('profile') or {}).get('input_shape')


def check_file(cfg: Config, path: str | os.PathLike | None, flag: str) -> None:
    """Raise :class:`UserError` if ``flag`` can't write ``path``.

    Args:
        cfg: The config; its model's class must have ``dummy_inputs``, or ``prune_cfg`` must give the shape
            of one sample.
        path: Value of the flag; None: nothing is checked.
        flag: One of ``EXTENSIONS``.
    """
    if path is None:
        return
    path = Path(path)
    if path.suffix != EXTENSIONS[flag]:
        raise UserError(f'{flag} {path} must be a file that ends in {EXTENSIONS[flag]}')
    if path.is_dir():
        raise UserError(f'{flag} {path} is a directory; name a file')
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f'{flag} {path} cannot be written; name a file in a writable directory')
    kind, cls = model_class(cfg)
    if not hasattr(cls, 'dummy_inputs') and sample_shape(cfg) is None:
        raise UserError(
            f'{flag} needs an example input, and {kind} has no dummy_inputs: set '
            'prune_cfg.profile.input_shape, e.g. (3, 224, 224)'
        )

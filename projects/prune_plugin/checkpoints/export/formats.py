"""``--save-hf``, ``--save-gguf``, ``--save-onnx``, ``--save-exported``: checkpoints for other programs."""

import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, fields
from functools import partial
from operator import methodcaller
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ...common.distributed import on_rank_0
from ...common.errors import UserError
from ...common.model_argument import check_model
from ...common.model_interface import (
    offers_dummy_inputs,
    offers_export_view,
    offers_save_gguf,
    offers_save_hf,
)
from ..model_loading import load_model
from .int8 import calibration_inputs, check_int8
from .onnx_export import check_packages, save_onnx
from .torch_export import save_exported


@dataclass(frozen=True)
class Exports:
    """Files to write for other programs; None: not asked for.

    Attributes:
        save_hf: A new or an empty folder, for Hugging Face.
        save_onnx: A file ``*.onnx``.
        save_exported: A file ``*.pt2`` of torch.export.
        save_gguf: A file ``*.gguf``, for llama.cpp.
        gguf_type: Of its weights.
        int8: Whether the ONNX file is one in 8 bits, calibrated on the config's data.
    """

    save_hf: str | None = None
    save_onnx: str | None = None
    save_exported: str | None = None
    save_gguf: str | None = None
    gguf_type: str = 'f16'
    int8: bool = False

    @classmethod
    def of(cls, args: Any) -> 'Exports':
        """What a tool's command line asks for; a flag that isn't given keeps its default."""
        given = {field.name: getattr(args, field.name) for field in fields(cls)}
        return cls(**{name: value for name, value in given.items() if value})


def check(cfg: Config, exports: Exports) -> None:
    """Raise :class:`UserError` if the config's model can't be written so, before any work."""
    if exports.save_hf:
        check_save_hf(cfg)
    if exports.save_gguf:
        check_save_gguf(cfg, exports.gguf_type)
    if exports.save_onnx:
        check_packages()
        check_example(cfg, '--save-onnx')
        if exports.int8:
            check_int8(cfg)
    if exports.save_exported:
        check_example(cfg, '--save-exported')


def save(
    cfg: Config,
    checkpoint: str | os.PathLike | None,
    exports: Exports,
    model: nn.Module | None = None,
) -> None:
    """Write a checkpoint's model for other programs, on rank 0.

    Args:
        cfg: The (dense) config.
        checkpoint: Dense, weight-level pruned, or slim; None: the weights that the model names.
        exports: What to write.
        model: The checkpoint's model, if it is loaded already; it must not be used afterwards. None: the
            checkpoint is loaded.
    """
    if model is not None:
        check_model(model)
    path = None if checkpoint is None else str(checkpoint)
    shape = sample_shape(cfg)
    steps: list[Callable[[nn.Module], Any]] = []
    if exports.save_hf:
        steps.append(methodcaller('save_hf', exports.save_hf))
    if exports.save_gguf:
        steps.append(methodcaller('save_gguf', exports.save_gguf, exports.gguf_type))
    if exports.save_onnx:
        steps.append(partial(write_onnx, cfg, exports=exports, shape=shape))
    if exports.save_exported:
        steps.append(partial(save_exported, path=exports.save_exported, input_shape=shape))

    def write() -> None:
        source = load_model(cfg, path).model if model is None else model.cpu().eval()
        for step in steps[:-1]:
            step(deepcopy(source))
        steps[-1](source)

    if steps:
        on_rank_0(write)


def write_onnx(
    cfg: Config, model: nn.Module, exports: Exports, shape: tuple[int, ...] | None
) -> None:
    """Write the ONNX file, in 8 bits if asked."""
    assert exports.save_onnx is not None
    batches = calibration_inputs(cfg, model) if exports.int8 else None
    save_onnx(model, path=exports.save_onnx, input_shape=shape, batches=batches)


def inner_model(cfg: Config) -> dict[str, Any]:
    """The config's model inside ``SlimModel`` and ``LoraModel``."""
    model = cfg.get('model') or {}
    while model.get('type') in ('SlimModel', 'LoraModel'):
        model = model['model']
    return model


def model_class(cfg: Config) -> tuple[str | None, Any]:
    """Name and class of the config's model inside ``SlimModel`` and ``LoraModel``; None if unknown."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    kind = inner_model(cfg).get('type')
    return kind, MODELS.get(kind) if isinstance(kind, str) else kind


def check_save_gguf(cfg: Config, gguf_type: str) -> None:
    """Raise :class:`UserError` unless the config's model can be written for llama.cpp."""
    kind, cls = model_class(cfg)
    if not offers_save_gguf(cls):
        raise UserError(
            f'--save-gguf: {kind} is not a language model of this project; leave the flag out'
        )
    cls.check_gguf(inner_model(cfg), gguf_type)


def check_save_hf(cfg: Config) -> None:
    """Raise :class:`UserError` unless the class of the config's model has ``save_hf(folder)``."""
    kind, cls = model_class(cfg)
    if not offers_save_hf(cls):
        raise UserError(f'--save-hf: {kind} is not a Hugging Face model; leave the flag out')


def sample_shape(cfg: Config) -> tuple[int, ...] | None:
    """``prune_cfg.profile.input_shape``: shape of one sample, for models without ``dummy_inputs``."""
    return ((cfg.get('prune_cfg') or {}).get('profile') or {}).get('input_shape')


def check_example(cfg: Config, flag: str) -> None:
    """Raise :class:`UserError` unless there are inputs to trace the config's model with.

    Args:
        cfg: The config; its model's class has to have ``dummy_inputs``, or ``prune_cfg`` to say the shape
            of a sample.
        flag: What needs them.
    """
    kind, cls = model_class(cfg)
    if offers_export_view(cls):
        return
    if not offers_dummy_inputs(cls) and sample_shape(cfg) is None:
        raise UserError(
            f'{flag} needs an example input, and {kind} has no dummy_inputs: set '
            'prune_cfg.profile.input_shape, e.g. (3, 224, 224)'
        )

"""Checkpoints to hand out: weights and what they need, in 16 bits, without what training left."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..common.errors import UserError
from .checkpoint_file import strip_module_prefix
from .model_loading import plain_meta
from .seal import is_tensor, seal

#: Entries of ``meta`` that describe the training, not the weights.
OF_TRAINING = ('cfg', 'experiment_name', 'hostname', 'seed', 'time', 'iter', 'epoch')


def published(
    checkpoint: Mapping[str, Any], dtype: torch.dtype, without: Sequence[str] = ()
) -> dict[str, Any]:
    """A checkpoint with ``state_dict``, ``masks`` and a plain ``meta`` alone.

    Args:
        checkpoint: With ``state_dict``; it isn't changed.
        dtype: Of its weights in floating point.
        without: Beginnings of names of tensors that are left out.

    Raises:
        UserError: a beginning fits no tensor; or a weight is too large for ``dtype``.
    """
    weights = strip_module_prefix(checkpoint['state_dict'])
    for start in without:
        if not any(name.startswith(start) for name in weights):
            raise UserError(
                f'--without {start}: no tensor of the checkpoint begins so; they are called '
                f'{", ".join(sorted({name.split(".")[0] for name in weights}))}, each with more behind it'
            )
    kept = {k: v for k, v in weights.items() if not k.startswith(tuple(without))}
    meta = {k: v for k, v in plain_meta(checkpoint).items() if k not in OF_TRAINING}
    result = dict(meta=meta, state_dict={k: narrowed(k, v, dtype) for k, v in kept.items()})
    if checkpoint.get('masks'):
        result['masks'] = checkpoint['masks']
    seal(result)
    return result


def narrowed(name: str, value: Any, dtype: torch.dtype) -> Any:
    """A tensor in ``dtype``, if it is one of floating-point numbers.

    Raises:
        UserError: a number becomes infinite by it.
    """
    if not is_tensor(value) or not value.is_floating_point():
        return value
    narrow: Tensor = value.detach().cpu().to(dtype)
    lost = narrow.isinf() & ~value.detach().cpu().isinf()
    if lost.any():
        raise UserError(
            f'--dtype {str(dtype).removeprefix("torch.")}: {name} has numbers up to '
            f'{float(value.abs().max()):.3g}, which become infinite (largest: '
            f'{torch.finfo(dtype).max:.3g}); take bfloat16 or float32'
        )
    return narrow.contiguous()

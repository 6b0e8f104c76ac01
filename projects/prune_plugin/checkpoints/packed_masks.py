"""Weight masks as stored in checkpoints: plain data, packed to one bit per weight."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.errors import UserError, first_line


def pack_masks(masks: dict[str, Tensor]) -> dict[str, dict]:
    """Pack boolean masks (True: kept) to ``{name: {'shape': list, 'bits': uint8 tensor}}``, 8 per byte."""
    return {
        name: {
            'shape': list(mask.shape),
            'bits': torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1))),
        }
        for name, mask in masks.items()
    }


def check_packed(masks: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """Raise :class:`UserError` if a packed mask is malformed, or its shape isn't that of its weight.

    Args:
        masks: Packed masks, see :func:`pack_masks`.
        weights: The checkpoint's tensors; the shape of a mask without a weight isn't checked.
    """
    for name, entry in masks.items():
        try:
            if not isinstance(entry, Mapping):
                raise TypeError(f'it is a {type(entry).__name__}, not packed to bits')
            shape, bits = torch.Size(entry['shape']), entry['bits']
            if bits.untyped_storage().nbytes() < bits.numel():
                raise ValueError('its bits are one value, repeated')
            if bits.dtype != torch.uint8 or bits.shape != ((shape.numel() + 7) // 8,):
                raise ValueError(f'{tuple(bits.shape)} {bits.dtype} for shape {tuple(shape)}')
            if min(shape, default=0) < 0:
                raise ValueError(f'its shape is {tuple(shape)}')
        except (
            AttributeError,
            LookupError,
            OverflowError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            raise UserError(
                f'the checkpoint holds a malformed mask for {name!r}: {first_line(error)}'
            ) from error
        weight = weights.get(name)
        if isinstance(weight, Tensor) and weight.shape != shape:
            raise UserError(
                f'the mask for {name!r} is {tuple(shape)}, its weight {tuple(weight.shape)}'
            )


def unpack_masks(packed: dict[str, dict]) -> dict[str, Tensor]:
    """The inverse of :func:`pack_masks`.

    Raises:
        UserError: a packed mask is malformed.
    """
    check_packed(packed, {})
    masks = {}
    for name, entry in packed.items():
        shape = torch.Size(entry['shape'])
        bits = np.unpackbits(entry['bits'].cpu().numpy(), count=shape.numel())
        masks[name] = torch.from_numpy(bits).bool().view(shape)
    return masks

"""Keeps pruned weights at zero while training."""

from functools import partial

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from torch import Tensor

from ..errors import UserError
from .prune_state_hook import unwrapped


def pack_masks(masks: dict[str, Tensor]) -> dict[str, dict]:
    """Bool masks as plain data, eight weights to the byte."""
    return {
        name: {
            'shape': list(mask.shape),
            'bits': torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1))),
        }
        for name, mask in masks.items()
    }


def unpack_masks(packed: dict[str, dict]) -> dict[str, Tensor]:
    """The inverse of :func:`pack_masks`.

    Raises:
        UserError: an entry isn't a packed mask.
    """
    masks = {}
    for name, entry in packed.items():
        try:
            shape = torch.Size(entry['shape'])
            packed_bits = entry['bits'].cpu().numpy()
            if len(packed_bits) != (shape.numel() + 7) // 8:
                raise ValueError(f'{len(packed_bits)} bytes for shape {tuple(shape)}')
            bits = np.unpackbits(packed_bits, count=shape.numel())
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(
                f'the checkpoint holds a malformed mask for {name!r}: {error}'
            ) from error
        masks[name] = torch.from_numpy(bits).bool().view(shape)
    return masks


@HOOKS.register_module()
class MaskHook(Hook):
    """Sets masked weights back to zero after every optimizer step, whatever optimizer it is.

    Their gradients are zero too, so that gradient clipping sees the weights that are left.

    The masks come from the checkpoint that is loaded (key ``masks``, as tools write it into
    ``<name>_pruned.pth``) and go into every checkpoint saved. They are no buffers of the model, so
    neither DDP nor an EMA averages them. It runs before EMA hooks, which then average zeros.

    Example:
        >>> custom_hooks = [dict(type='MaskHook')]
        >>> load_from = 'pruned_models/vit_pruned.pth'
    """

    priority = 'HIGH'

    def __init__(self):
        self.masks: dict[str, Tensor] = {}
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._handles: list = []

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take the checkpoint's masks."""
        self.masks = unpack_masks(checkpoint.get('masks') or {})

    def before_train(self, runner) -> None:
        """Match masks with parameters, and apply them once."""
        parameters = dict(unwrapped(runner).named_parameters())
        self._pairs = []
        for name, keep in self.masks.items():
            parameter = parameters.get(name)
            if parameter is None or parameter.shape != keep.shape:
                raise UserError(f'the mask for {name!r} fits no parameter of the model')
            gone = ~keep.to(parameter.device)
            self._pairs.append((parameter, gone))
            if parameter.requires_grad:
                silence = partial(torch.masked_fill, mask=gone, value=0)
                self._handles.append(parameter.register_hook(silence))
        print_log(f'{len(self._pairs)} masked weights are kept at zero', 'current')
        self._apply()

    def after_train(self, runner) -> None:
        """Let gradients pass again."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Set masked weights back to zero."""
        self._apply()

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the masks."""
        checkpoint['masks'] = pack_masks(self.masks)

    @torch.no_grad()
    def _apply(self) -> None:
        for parameter, gone in self._pairs:
            parameter.masked_fill_(gone, 0)

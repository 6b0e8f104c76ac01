"""Keeps pruned weights at zero while training."""

from functools import partial

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.hooks import RemovableHandle

from ...checkpoints.packed_masks import pack_masks, unpack_masks
from ...checkpoints.seal import seal
from ...common.errors import UserError
from ...common.model_wrappers import unwrapped
from ..lora.adapters import plain_parameters
from ..sharding.fully_shard import local, shard_like


def zero_share(checkpoint: dict) -> float | None:
    """The fraction of zeros among a checkpoint's masked tensors; None without masks.

    Raises:
        RuntimeError: a masked weight isn't zero.
    """
    masks = unpack_masks(checkpoint.get('masks') or {})
    if not masks:
        return None
    weights = {k.removeprefix('module.'): v for k, v in checkpoint['state_dict'].items()}
    grown = [name for name, keep in masks.items() if weights[name][~keep].any()]
    if grown:
        raise RuntimeError(f'masked weights of {grown[0]} are not zero after training')
    total = sum(keep.numel() for keep in masks.values())
    return sum(int((weights[name] == 0).sum()) for name in masks) / total


@HOOKS.register_module()
class MaskHook(Hook):
    """Sets masked weights back to zero after every optimizer step, whatever optimizer it is.

    Their gradients are zero too, so that gradient clipping sees the weights that are left.

    The masks come from the checkpoint that is loaded (key ``masks``, as tools write it into
    ``<name>_pruned.pth``) and go into every checkpoint saved. They are no buffers of the model, so
    neither DDP nor an EMA averages them. It runs before EMA hooks, which then average zeros. Of a
    parameter that is divided among ranks each rank treats its part.

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
        parameters = plain_parameters(unwrapped(runner))
        self._pairs = []
        for name, keep in self.masks.items():
            parameter = parameters.get(name)
            if parameter is None or parameter.shape != keep.shape:
                raise UserError(f'the mask for {name!r} fits no parameter of the model')
            gone = local(shard_like(~keep.to(parameter.device), parameter))
            self._pairs.append((parameter, gone))
            if parameter.requires_grad:
                self._handles.append(silence(parameter, gone))
        if self._pairs:
            print_log(f'{len(self._pairs)} masked weights are kept at zero', 'current')
        self._apply()
        self._pairs = [pair for pair in self._pairs if pair[0].requires_grad]

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
        seal(checkpoint)

    @torch.no_grad()
    def _apply(self) -> None:
        for parameter, gone in self._pairs:
            local(parameter).masked_fill_(gone, 0)


def silence(parameter: Tensor, gone: Tensor) -> RemovableHandle:
    """Have gradients be zero where ``gone`` is true, until the handle is removed.

    Args:
        parameter: A parameter, divided among ranks or not.
        gone: Bool; the shape is that of the part of it on this rank.
    """
    if not isinstance(parameter, DTensor):
        return parameter.register_hook(partial(torch.masked_fill, mask=gone, value=0))

    def clear(divided: Tensor) -> None:
        with torch.no_grad():
            local(divided.grad).masked_fill_(gone, 0)

    return parameter.register_post_accumulate_grad_hook(clear)

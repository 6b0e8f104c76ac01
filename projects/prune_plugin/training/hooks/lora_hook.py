"""Trains adapters: what they need in checkpoints."""

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from ...common.errors import UserError
from ...common.model_wrappers import unwrapped
from ..lora.adapters import lora_layers
from ..sharding.fully_shard import shard_like


@HOOKS.register_module()
class LoraHook(Hook):
    """Starts, saves and resumes the training of a ``LoraModel``.

    A checkpoint's ``state_dict`` holds merged weights under plain names. Its entry ``lora`` has what
    resuming needs bit for bit: ``adapters``, and in ``base`` the frozen weights under them (merged
    weights less the adapters would be rounded otherwise, and the file the training began with may be
    gone). That makes two tensors for each adapted weight, one less than with the moments of Adam.

    Adapters of layers that the checkpoint has masks for leave masked weights at zero.
    """

    priority = 'LOWEST'

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Mark masked layers; draw fresh adapters, or take up those of the training to resume."""
        layers = dict(lora_layers(unwrapped(runner)))
        for name, layer in layers.items():
            layer.masked = f'{name}.weight' in (checkpoint.get('masks') or {})
        masked = sum(layer.masked for layer in layers.values())
        print_log(f'adapters on {len(layers)} linear layers, {masked} of them masked', 'current')
        if not runner._resume:
            draw(layers, runner.seed or 0)
            return
        saved = checkpoint.get('lora')
        if not saved:
            raise UserError(
                f'{runner._load_from} holds no adapters to resume the training of; resume without '
                'prune_cfg.recovery.lora, or name a checkpoint of a training with it'
            )
        weights = {n: w for n, w in checkpoint['state_dict'].items() if n not in saved['base']}
        base = {
            f'{name.removesuffix("weight")}base_layer.weight': weight
            for name, weight in saved['base'].items()
        }
        checkpoint['state_dict'] = {**weights, **base, **saved['adapters']}

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the adapters and the weights under them."""
        adapters, base = {}, {}
        for name, layer in lora_layers(unwrapped(runner)):
            base[f'{name}.weight'] = layer.base_layer.weight.detach()
            for key, tensor in layer.adapters().items():
                adapters[f'{name}.{key}'] = tensor.detach()
        checkpoint['lora'] = {'adapters': adapters, 'base': base}


@torch.no_grad()
def draw(layers: dict[str, torch.nn.Module], seed: int) -> None:
    """Fresh adapters, the same on all ranks: uniform as in a linear layer, and zeros."""
    generator = torch.Generator().manual_seed(seed)
    for layer in layers.values():
        a, b = layer.adapters().values()
        bound = a.shape[1] ** -0.5
        fresh = torch.empty(a.shape).uniform_(-bound, bound, generator=generator)
        a.copy_(shard_like(fresh.to(a.device, a.dtype), a))
        b.zero_()

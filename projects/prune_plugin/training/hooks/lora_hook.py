"""Training of low-rank adapters: initialising, saving and resuming them."""

from collections.abc import Mapping

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from torch import Tensor, nn

from ...common.errors import UserError
from ...common.model_wrappers import unwrapped
from ..lora.adapters import lora_layers
from ..sharding.fully_shard import shard_like


@HOOKS.register_module()
class LoraHook(Hook):
    """Initialises, saves and resumes the adapters of a ``LoraModel``.

    A checkpoint's ``state_dict`` holds merged weights under plain names. Its entry ``lora`` holds what an
    exact resume needs: ``adapters``, and in ``base`` the frozen weights under them, as subtracting the
    adapters from merged weights would round differently and the initial checkpoint may no longer exist.
    So there are two tensors of an adapted weight's size; full training with Adam saves three.

    Adapters of layers for which the checkpoint has masks keep masked weights at zero.

    Raises:
        UserError: the checkpoint to resume holds no adapters.
    """

    priority = 'LOWEST'

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Mark masked layers; initialise adapters, or restore those of the training to resume."""
        layers = dict(lora_layers(unwrapped(runner)))
        for name, layer in layers.items():
            layer.masked = f'{name}.weight' in (checkpoint.get('masks') or {})
        masked = sum(layer.masked for layer in layers.values())
        print_log(f'adapters on {len(layers)} linear layers, {masked} of them masked', 'current')
        if not runner._resume:
            init_adapters(layers, runner.seed or 0)
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
        """Add the adapters and their base weights."""
        adapters: dict[str, Tensor] = {}
        base: dict[str, Tensor] = {}
        for name, layer in lora_layers(unwrapped(runner)):
            base[f'{name}.weight'] = layer.base_layer.weight.detach()
            for key, tensor in layer.adapters().items():
                adapters[f'{name}.{key}'] = tensor.detach()
        checkpoint['lora'] = {'adapters': adapters, 'base': base}


@torch.no_grad()
def init_adapters(layers: Mapping[str, nn.Module], seed: int) -> None:
    """Initialise adapters in place, equally on all ranks: A uniform as in a linear layer, B zero."""
    generator = torch.Generator().manual_seed(seed)
    for layer in layers.values():
        a, b = layer.adapters().values()
        bound = a.shape[1] ** -0.5
        values = torch.empty(a.shape).uniform_(-bound, bound, generator=generator)
        a.copy_(shard_like(values.to(a.device, a.dtype), a))
        b.zero_()

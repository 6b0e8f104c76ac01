"""Parameters sharded among ranks (FSDP2): wrapping a model, sharding and gathering tensors."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODEL_WRAPPERS
from torch import Tensor, nn
from torch import distributed as torch_dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ...common.device import best_device
from ...common.errors import UserError
from ...common.patterns import check_matches, matches_whole, select, some_patterns

KEYS = ('blocks', 'mixed_precision')
PRECISIONS = {'bf16': torch.bfloat16}


def check_sharding(sharding: Any, key: str = 'sharding') -> None:
    """Raise :class:`UserError` unless ``sharding`` may stand in ``prune_cfg.recovery``."""
    if not isinstance(sharding, Mapping):
        raise UserError(
            f"{key} is {sharding!r}; it must be a dict such as dict(blocks=[r'.*layers\\.\\d+'])"
        )
    for name in sharding:
        if name not in KEYS:
            raise UserError(f'{key}.{name} is not a key; valid are {", ".join(KEYS)}')
    some_patterns(f'{key}.blocks', sharding.get('blocks'))
    valid = [None, *PRECISIONS]  # a list, as what a config gives may not be hashable
    precision = sharding.get('mixed_precision')
    if precision not in valid:
        raise UserError(
            f'{key}.mixed_precision is {precision!r}; valid are {", ".join(map(str, valid))}'
        )


def shard_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Shard ``value``, a whole tensor, as ``parameter`` is; unchanged if the parameter isn't sharded."""
    if not isinstance(parameter, DTensor) or isinstance(value, DTensor):
        return value
    mesh = parameter.device_mesh
    value = value.to(mesh.device_type)
    return distribute_tensor(value, mesh, parameter.placements, src_data_rank=None)


def local(tensor: Tensor) -> Tensor:
    """This rank's shard of ``tensor``, a view; a tensor that isn't sharded itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(value: Any, keep: bool = True) -> Any:
    """``value`` with all tensors whole and on the CPU; all ranks must call it.

    Args:
        value: Tensors in dicts, lists and tuples; other values are returned unchanged.
        keep: False on ranks that only take part in gathering: they get None for each sharded tensor.
    """
    if isinstance(value, DTensor):
        whole = value.detach().full_tensor()
        return whole.cpu() if keep else None
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):  # subclasses too: a state dict is an OrderedDict
        return type(value)((k, gathered(v, keep)) for k, v in value.items())
    if type(value) in (list, tuple):
        return type(value)(gathered(v, keep) for v in value)
    return value


def block_names(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the modules whose full names match a pattern, inner modules first.

    Raises:
        UserError: a pattern matches none.
    """
    names = [name for name, _ in model.named_modules() if name]
    check_matches('sharding.blocks', patterns, names[::-1], 'whole names of modules', matches_whole)
    chosen = select(names, patterns, match=matches_whole)
    return sorted(chosen, key=lambda name: -name.count('.'))


@MODEL_WRAPPERS.register_module()
class FullyShard(nn.Module):
    """Shards a model's parameters, gradients and optimizer state among all ranks (FSDP2).

    A block's parameters are gathered only while it runs. It needs ``runner_type='ShardedRunner'``, which
    saves and loads whole tensors.

    Args:
        module: The model, changed in place. It may be on the CPU: its shards move to the GPU block by
            block.
        blocks: Regular expressions that match full names of modules: the parameters of each of these are
            gathered together. In a transformer, its layers.
        mixed_precision: ``'bf16'``: parameters are gathered and the forward pass runs in bfloat16;
            gradients are reduced in float32. None: in the parameters' own type.
        saved_whole: Set by the ShardedRunner; other runners would save the shards of one rank.

    Raises:
        UserError: the runner is no ShardedRunner, or a pattern matches no module.

    Example:
        >>> runner_type = 'ShardedRunner'
        >>> model_wrapper_cfg = dict(type='FullyShard', blocks=[r'lm\\.model\\.layers\\.\\d+'])
    """

    def __init__(
        self,
        module: nn.Module,
        blocks: Sequence[str],
        mixed_precision: str | None = None,
        saved_whole: bool = False,
    ):
        super().__init__()
        if not saved_whole:
            raise UserError(
                "model_wrapper_cfg.type is 'FullyShard', which needs runner_type='ShardedRunner'"
            )
        check_sharding(dict(blocks=blocks, mixed_precision=mixed_precision), 'model_wrapper_cfg')
        names = block_names(module, blocks)
        dtype = None if mixed_precision is None else PRECISIONS[mixed_precision]
        device = best_device()
        options = dict(
            mesh=init_device_mesh(device, (torch_dist.get_world_size(),)),
            mp_policy=MixedPrecisionPolicy(dtype, torch.float32 if dtype else None),
        )
        for name in names:
            fully_shard(module.get_submodule(name), **options)
        self.module = fully_shard(module, **options)
        for part in module.modules():
            if isinstance(part, BaseDataPreprocessor):
                part.to(device)  # its tensors have been moved, but it notes where it puts the data
            if any(isinstance(p, DTensor) for p in part._parameters.values()):
                part.register_load_state_dict_pre_hook(shard_state_dict)

    def forward(self, *args, **kwargs) -> Any:
        """As the model's."""
        return self.module(*args, **kwargs)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """As the model's; gradients are reduced over ranks in every step, also under accumulation."""
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data: Any) -> list:
        """As the model's."""
        return self.module.val_step(data)

    def test_step(self, data: Any) -> list:
        """As the model's."""
        return self.module.test_step(data)


def shard_state_dict(module: nn.Module, state_dict: dict, prefix: str, *args) -> None:
    """Pre-hook of loading: replace whole tensors in ``state_dict`` by shards, as the module's are."""
    for name, parameter in module._parameters.items():
        key = f'{prefix}{name}'
        if key in state_dict and state_dict[key].shape == parameter.shape:
            state_dict[key] = shard_like(state_dict[key], parameter)


def shard_loaded_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer of sharded parameters load the state of whole ones."""
    optimizer.register_load_state_dict_pre_hook(partial(sharded_state, optimizer))


def sharded_state(optimizer: torch.optim.Optimizer, _: Any, state_dict: dict) -> dict:
    """An optimizer's ``state_dict`` with tensors sharded as the parameters that they belong to."""
    parameters = [p for group in optimizer.param_groups for p in group['params']]
    numbers = [n for group in state_dict['param_groups'] for n in group['params']]
    parameter_of = dict(zip(numbers, parameters, strict=False))
    state = {
        number: {
            key: shard_like(value, parameter_of[number])
            if isinstance(value, Tensor) and value.shape == parameter_of[number].shape
            else value
            for key, value in entries.items()
        }
        for number, entries in state_dict['state'].items()
    }
    return {**state_dict, 'state': state}

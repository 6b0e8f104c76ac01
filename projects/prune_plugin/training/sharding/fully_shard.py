"""Parameters that are divided among ranks (FSDP2): wrapping a model, and moving tensors in and out."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.registry import MODEL_WRAPPERS
from torch import Tensor, nn
from torch import distributed as torch_dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ...common.errors import UserError
from ...common.patterns import check_matches, matches_whole, select, some_patterns
from ...common.validation import one_of

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
    one_of(f'{key}.mixed_precision', sharding.get('mixed_precision'), (None, *PRECISIONS))


def shard_like(value: Tensor, parameter: Tensor) -> Tensor:
    """This rank's part of ``value``, divided as ``parameter`` is; the tensor itself if that is whole."""
    if not isinstance(parameter, DTensor) or isinstance(value, DTensor):
        return value
    mesh = parameter.device_mesh
    value = value.to(mesh.device_type)
    return distribute_tensor(value, mesh, parameter.placements, src_data_rank=None)


def local(tensor: Tensor) -> Tensor:
    """The part of ``tensor`` on this rank, as a view."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(value: Any, keep: bool = True) -> Any:
    """``value`` with every divided tensor put together, on the CPU; all ranks must call it.

    Args:
        value: Tensors in dicts, lists and tuples; anything else stays as it is.
        keep: False on ranks that only take part: they get None for each divided tensor.
    """
    if isinstance(value, DTensor):
        whole = value.detach().full_tensor()
        return whole.cpu() if keep else None
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return type(value)((k, gathered(v, keep)) for k, v in value.items())
    if type(value) in (list, tuple):
        return type(value)(gathered(v, keep) for v in value)
    return value


def block_names(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the modules that the patterns match whole, inner ones first.

    Raises:
        UserError: a pattern matches none.
    """
    names = [name for name, _ in model.named_modules() if name]
    check_matches('sharding.blocks', patterns, names[::-1], 'whole names of modules', matches_whole)
    chosen = select(names, patterns, match=matches_whole)
    return sorted(chosen, key=lambda name: -name.count('.'))


@MODEL_WRAPPERS.register_module()
class FullyShard(nn.Module):
    """Divides a model's parameters, gradients and optimizer state among all ranks (FSDP2).

    The blocks and what is around them are put together only while they run. It needs
    ``runner_type='ShardedRunner'``, which saves and loads whole tensors.

    Args:
        module: The model, changed in place. It may be on the CPU: each block goes to the GPU by itself.
        blocks: Patterns that match whole names of the modules to put together at a time, in a
            transformer its layers.
        mixed_precision: ``'bf16'``: parameters are put together in bfloat16 and the forward pass runs in
            it; gradients are summed in float32. None: as they are.
        saved_whole: Set by the ShardedRunner, as others would save one rank's part.

    Raises:
        UserError: it is another runner, or a pattern matches no module.

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
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        dtype = PRECISIONS.get(mixed_precision)
        options = dict(
            mesh=init_device_mesh(device, (torch_dist.get_world_size(),)),
            mp_policy=MixedPrecisionPolicy(dtype, torch.float32 if dtype else None),
        )
        for name in names:
            fully_shard(module.get_submodule(name), **options)
        self.module = fully_shard(module, **options)
        for part in module.modules():
            if any(isinstance(p, DTensor) for p in part._parameters.values()):
                part.register_load_state_dict_pre_hook(divide_state)

    def forward(self, *args, **kwargs) -> Any:
        """The model's."""
        return self.module(*args, **kwargs)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """The model's; gradients are summed over ranks in every step, also when they accumulate."""
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data: Any) -> list:
        """The model's."""
        return self.module.val_step(data)

    def test_step(self, data: Any) -> list:
        """The model's."""
        return self.module.test_step(data)


def divide_state(module: nn.Module, state_dict: dict, prefix: str, *args) -> None:
    """Before ``module`` loads whole tensors: leave of them what this rank holds."""
    for name, parameter in module._parameters.items():
        key = f'{prefix}{name}'
        if key in state_dict and state_dict[key].shape == parameter.shape:
            state_dict[key] = shard_like(state_dict[key], parameter)


def divide_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Have an optimizer load the state of whole parameters, each rank its part."""
    optimizer.register_load_state_dict_pre_hook(partial(divided, optimizer))


def divided(optimizer: torch.optim.Optimizer, _: Any, state_dict: dict) -> dict:
    """``state_dict`` with its tensors divided as the parameters are."""
    parameters = [p for group in optimizer.param_groups for p in group['params']]
    numbers = [n for group in state_dict['param_groups'] for n in group['params']]
    owner = dict(zip(numbers, parameters, strict=False))
    state = {
        number: {
            key: shard_like(value, owner[number])
            if isinstance(value, Tensor) and value.shape == owner[number].shape
            else value
            for key, value in entries.items()
        }
        for number, entries in state_dict['state'].items()
    }
    return {**state_dict, 'state': state}

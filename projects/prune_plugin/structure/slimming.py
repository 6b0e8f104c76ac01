"""Removing units from the tensors (slim), or setting them to zero (mask)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..common.errors import UserError
from .attribute_paths import get, put
from .modules import SlimMultiheadAttention, converter_of, maskable_router
from .prune_state import PruneState
from .unit_group import Cut, UnitGroup, named_tensors


@torch.no_grad()
def slim(model: nn.Module, state: PruneState) -> nn.Module:
    """Remove, in place, the units that ``state`` doesn't keep.

    Args:
        model: The model that the state refers to; meta tensors are sufficient.
        state: Which units are kept.

    Returns:
        The same model with smaller tensors. The keys of its state dict don't change, except those of
        removed layers; tensors of which nothing is removed stay the same objects.

    Raises:
        UserError: the state doesn't fit the model, which then isn't changed.
    """
    check_fits(model, state)
    groups = without_removed_layers(state)
    for group in groups:
        for name, converter in group.converts:
            module = model.get_submodule(name)
            replace_module(model, name, converted(module, converter))
    removed: dict[int, dict[int, Tensor]] = {}
    tensors = named_tensors(model)
    for (name, dim), indices in state.removed_indices().items():
        if name in tensors:
            removed.setdefault(id(tensors[name]), {})[dim] = indices
    replace_tensors(model, removed)
    for group in groups:
        for attr in group.attrs:
            module = model.get_submodule(attr.module)
            removed_units = group.size - len(state.kept[group.name])
            put(module, attr.name, get(module, attr.name) - removed_units * attr.per_unit)
        for name, converter in group.emptied if not len(state.kept[group.name]) else ():
            replace_module(model, name, converted(model.get_submodule(name), converter))
    for module in model.modules():
        sync_widths(module)
    return model


def converted(module: nn.Module, converter: str) -> nn.Module:
    """The module that a converter makes of one."""
    convert = converter_of(converter)
    if convert is None:
        raise UserError(f'prune_state names an unknown converter {converter!r}')
    return convert(module)


def without_removed_layers(state: PruneState) -> list[UnitGroup]:
    """The reduced groups, without what they have inside of modules that are removed as a whole.

    The largest of these modules come first.
    """
    names: list[str] = []
    whole: list[UnitGroup] = []
    for group in sorted((g for g in state.reduced if g.is_whole), key=lambda g: len(g.module)):
        if not any(is_within(group.module, name) for name in names):
            names.append(group.module)
            whole.append(group)
    rest = [outside(group, names) for group in state.reduced if not group.is_whole]
    return [*whole, *(group for group in rest if group.cuts)]


def outside(group: UnitGroup, modules: Sequence[str]) -> UnitGroup:
    """A group without what it has inside of some modules."""

    def stays(name: str) -> bool:
        return not any(is_within(name, module) for module in modules)

    return replace(
        group,
        cuts=tuple(cut for cut in group.cuts if stays(cut.name)),
        attrs=tuple(attr for attr in group.attrs if stays(attr.module)),
        converts=tuple(pair for pair in group.converts if stays(pair[0])),
        emptied=tuple(pair for pair in group.emptied if stays(pair[0])),
    )


def is_within(name: str, module: str) -> bool:
    """Whether a module or tensor is a module, or inside of it."""
    return name == module or name.startswith(f'{module}.')


def replace_tensors(model: nn.Module, removed: dict[int, dict[int, Tensor]]) -> None:
    """Replace parameters and buffers by cut ones, in place; tied parameters stay tied.

    Args:
        model: The model.
        removed: By ``id`` of the tensor, the arguments of :func:`cut_tensor`.
    """
    replacements: dict[int, Tensor] = {}
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is None or id(tensor) not in removed:
                    continue
                if id(tensor) not in replacements:
                    cut = cut_tensor(tensor.detach(), removed[id(tensor)])
                    if isinstance(tensor, nn.Parameter):
                        cut = nn.Parameter(cut, requires_grad=tensor.requires_grad)
                    replacements[id(tensor)] = cut
                table[name] = replacements[id(tensor)]


def cut_tensor(tensor: Tensor, removed: dict[int, Tensor]) -> Tensor:
    """Copy of ``tensor`` without the indices ``{dimension: indices}``."""
    for dim, indices in removed.items():
        is_kept = torch.ones(tensor.shape[dim], dtype=torch.bool)
        is_kept[indices] = False
        tensor = tensor.index_select(dim, is_kept.nonzero().flatten().to(tensor.device))
    return tensor


@torch.no_grad()
def mask(model: nn.Module, state: PruneState) -> nn.Module:
    """Set to zero, in place, every parameter of the units that ``state`` doesn't keep.

    The masked model computes the same as the slim one, at the dense model's cost. Where a zero would
    change the result, the cut has another ``fill`` value or a flag that the module reads (see
    :class:`Cut`).

    Raises:
        UserError: the state doesn't fit the model, which then isn't changed.
    """
    check_fits(model, state)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    tensors = named_tensors(model)
    for group in state.reduced:
        units = state.removed(group.name)
        for name, converter in group.converts:
            if maskable_router.parse(converter) is not None:
                replace_module(model, name, converted(model.get_submodule(name), converter))
        for cut in group.cuts:
            parameter = tensors.get(cut.name) if cut.fill else parameters.get(cut.name)
            if cut.side == 'flag':
                clear_flags(model, cut, group.size, units)
            elif parameter is not None and cut.dim is None:
                parameter.zero_()
            elif parameter is not None:
                rows = cut.indices(group.size)[units].flatten().to(parameter.device)
                parameter.index_fill_(cut.dim, rows, cut.fill)
    return model


def clear_flags(model: nn.Module, cut: Cut, size: int, units: Tensor) -> None:
    """Set the flags of ``units`` to 0 in a non-persistent buffer, which is created if it is None."""
    path, _, name = cut.name.rpartition('.')
    module = model.get_submodule(path)
    flags = getattr(module, name)
    if flags is None:
        device = next(model.parameters()).device
        flags = torch.ones(size * cut.per_unit, device=device)
        module.register_buffer(name, flags, persistent=False)
    flags[cut.indices(size)[units].flatten().to(flags.device)] = cut.fill


def check_fits(model: nn.Module, state: PruneState) -> None:
    """Raise :class:`UserError` naming the first entry of ``state`` that doesn't fit ``model``."""
    if not isinstance(state, PruneState):
        raise UserError(
            f'a {type(state).__name__} is no prune state; give plan.state, or PruneState.from_dict(...)'
        )
    tensors = named_tensors(model)
    modules = dict(model.named_modules())
    for group in state.groups.values():
        where = f'prune_state.groups[{group.name!r}]'
        if len(state.kept[group.name]) < group.least:
            raise UserError(f'{where}: at least {group.least} of its units must be kept')
        for module, converter in (*group.converts, *group.emptied):
            if module not in modules:
                raise UserError(f'{where}: the model has no module {module!r} for {converter}')
        for attr in group.attrs:
            holder = modules.get(attr.module)
            value = None if holder is None else get(holder, attr.name)
            if not isinstance(value, int) or value != attr.dense(group.size):
                raise UserError(
                    f'{where}: {attr.module}.{attr.name} is {value!r} in this model, '
                    f'not {attr.dense(group.size)}; the state belongs to another model'
                )
        for cut in group.cuts:
            tensor = tensors.get(cut.name)
            if tensor is not None:
                shape = tensor.shape
            elif cut.side in ('index', 'flag'):  # created by a converter or by masking
                shape = (group.size * (cut.per_unit if cut.side == 'flag' else 1),)
            else:
                raise UserError(f'{where}: the model has no tensor {cut.name!r}')
            if cut.dim is None:
                continue
            needed = cut.length(group.size)
            length = shape[cut.dim] if cut.dim < len(shape) else 0
            if length < needed:
                raise UserError(
                    f'{where}: dimension {cut.dim} of {cut.name!r} is {length} in this model, '
                    f'at least {needed} in the state; the state belongs to another model'
                )


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the submodule ``name`` of ``model`` by ``module``; an empty name is the model itself.

    It is replaced under all of its names, and hooks registered on it go on working.
    """
    if not name:
        model.__class__, model.__dict__ = module.__class__, module.__dict__
        return
    before = model.get_submodule(name)
    if module is not before:
        carry_hooks(before, module)
    for parent in list(model.modules()):
        for child, own in parent._modules.items():
            if own is before:
                parent._modules[child] = module
    if isinstance(module, SlimMultiheadAttention):
        parts = name.split('.')
        for i in range(len(parts)):
            parent = model.get_submodule('.'.join(parts[:i]))
            if isinstance(parent, nn.TransformerEncoder):
                parent.use_nested_tensor = False  # only nn.MultiheadAttention takes these


def carry_hooks(before: nn.Module, after: nn.Module) -> None:
    """Hand over a module's hooks; their handles remain valid."""
    for name, table in vars(before).items():
        if 'hooks' in name and isinstance(table, dict):
            table.update(vars(after).get(name) or {})
            vars(after)[name] = table


def sync_widths(module: nn.Module) -> None:
    """Update a leaf module's width attributes (``in_features`` ...) to the shape of its weight."""
    weight = getattr(module, 'weight', None)
    if weight is None:
        return
    kind = type(module).__name__
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) or 'DeformConv2d' in kind:
        if (
            module.groups == module.out_channels > 1
        ):  # depthwise: several groups may own its channels
            module.groups = weight.shape[0]
        module.out_channels = weight.shape[0]
        module.in_channels = weight.shape[1] * module.groups
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.num_features = weight.shape[0]
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = weight.shape[0]
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = weight.shape

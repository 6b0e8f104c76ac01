"""Which units a model has: known by the names of classes, or discovered by what it computes; and proven."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ...common.errors import UserError, first_line
from ...common.eval_mode import as_usual, evaluation_mode
from ...common.model_argument import check_model, has_meta_weights
from ...common.random_state import kept_random_state
from ...common.registry import UNITS, build
from ...common.unchanged import unchanged
from ...evaluation.example_inputs import data_sample_kwargs, example_input
from ...structure.discovery.call import Call
from ...structure.discovery.discover import discover_units
from ...structure.discovery.forward import output_tensors
from ...structure.discovery.known import trials
from ...structure.discovery.proof import CHANGED, without_cache
from ...structure.discovery.trials import Discovery
from ...structure.prunable_weights import check_finite
from ...structure.unit_group import UnitGroup, named_tensors
from ...structure.units.finder import (
    UnitFinder,
    check_disjoint,
    default_finders,
    find_all,
    find_known,
    join,
    selected,
)
from ...structure.units.home_classes import is_home_class
from .image_models import calls_of_features, image_calls
from .point_clouds import point_cloud_calls

#: Share of the weights in known units from which on a model counts as known.
WELL_KNOWN = 0.9


@dataclass
class FoundUnits:
    """What is known of a model's units.

    Attributes:
        groups: The groups that may be pruned.
        refused: ``{module: reason}`` for modules that can't.
        proofs: How each group was found, and whether it was tried on a copy, by name.
    """

    groups: list[UnitGroup] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    proofs: dict[str, str] = field(default_factory=dict)


def built_finders(units: Sequence[Mapping] | None) -> list[UnitFinder] | None:
    """The unit finders that ``prune_cfg.units`` names; None: there is no such key.

    Raises:
        UserError: it is no list of dicts, is empty, or an entry isn't valid.
    """
    if units is None:
        return None
    if isinstance(units, str | Mapping) or not isinstance(units, Sequence) or not units:
        raise UserError(f'prune_cfg.units is {units!r}; it must be a non-empty list of dicts')
    return [build(UNITS, unit, f'prune_cfg.units[{i}]') for i, unit in enumerate(units)]


@as_usual()
def find_units(
    model: nn.Module,
    finders: Sequence[UnitFinder] | None,
    include: Sequence[str],
    exclude: Sequence[str],
    example: Callable[[], Call | None],
    given: bool = False,
) -> FoundUnits:
    """Find the units of a model.

    Args:
        model: The model.
        finders: Those of the config; None: all known kinds, and what is discovered besides.
        include: See :func:`projects.prune_plugin.structure.units.finder.discover`.
        exclude: The same.
        example: Gives an example call, or None: then nothing is proven or discovered. It isn't asked for
            where all is known.
        given: Whether the user gave the example: then what is known is tried, too.

    Raises:
        UserError: it is no model, there are no units, or none are left.
    """
    check_model(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError(
            f'{type(model).__name__}: scripted and traced models have fixed sizes; prune the module that '
            'it was made from'
        )
    example = cache(example)
    proven: dict[str, str] = {}
    for finder in finders or ():
        finder.example = example
    groups, refused = find_known(model) if finders is None else find_all(model, finders)
    for finder in finders or ():
        proven |= finder.proofs
    proofs = {group.name: 'known by its class, not tried' for group in groups}
    proofs |= {name: f'discovered, {how}' for name, how in proven.items()}
    tied = {g.name: why for g in groups if g.name not in proven and (why := shared_with(model, g))}
    groups = [group for group in groups if group.name not in tied]
    refused = {**refused, **tied}
    by_name = [group for group in groups if group.name not in proven]
    foreign = [g for g in by_name if given or not is_home_class(model.get_submodule(g.owner))]
    wanted = finders is None and reach(model, groups) < WELL_KNOWN
    call = example() if foreign or wanted else None
    if wanted and groups and call is None:
        print_log(
            f'{1 - reach(model, groups):.0%} of the weights are in no unit of a known kind; to discover '
            'more set prune_cfg.profile.input_shape, or give plan(model, example_inputs=...)',
            'current',
        )
    if call is not None and finders is None and not are_disjoint(model, groups):
        groups, foreign, wanted = [], [], True  # modules that share layers: names don't tell
    if call is not None:
        failed, tried = trials(model, foreign, call)
        for group in foreign:
            known_well = is_home_class(model.get_submodule(group.owner))
            if not known_well and group.name not in {**failed, **tried}:
                failed[group.name] = (
                    'only called like a known class, and the example does not reach it'
                )
        groups = [group for group in groups if group.name not in failed]
        proofs |= {name: f'known by its class, {how}' for name, how in tried.items()}
        refused = {**refused, **failed}
        if wanted or (failed and finders is None):
            try:
                found = discover_units(model, call, groups)
            except UserError as error:
                if not groups:
                    raise
                found = Discovery(refused={type(model).__name__: str(error)})
            groups = [*groups, *found.groups]
            refused = {**refused, **found.refused}
            proofs |= {name: f'discovered, {how}' for name, how in found.proofs.items()}
    check_any(model, groups, refused, call)
    names = {group.name for group in groups}
    refused = {name: why for name, why in refused.items() if name not in names}
    groups = selected(model, groups, include, exclude, refused)
    return FoundUnits(groups, refused, {group.name: proofs[group.name] for group in groups})


def shared_with(model: nn.Module, group: UnitGroup) -> str:
    """Why a group can't go that a layout gave: it cuts a tensor that another module has as well.

    The rest of that module, its bias and what reads it, would keep its width.
    """
    tensors = named_tensors(model)
    cut = {(id(tensors[c.name]), c.dim) for c in group.cuts if c.name in tensors}
    own = {
        id(model.get_submodule(c.name.rpartition('.')[0])) for c in group.cuts if c.name in tensors
    }
    for name, module in model.named_modules():
        if id(module) in own or isinstance(module, nn.Embedding):
            continue
        for table in (module._parameters, module._buffers):
            for key, tensor in table.items():
                if tensor is not None and any(
                    id(tensor) == held for held, dim in cut if dim is not None
                ):
                    holder = name or type(model).__name__
                    return f'{join(name, key)} is one of its tensors, too, and {holder} would not follow'
    return ''


def are_disjoint(model: nn.Module, groups: Sequence[UnitGroup]) -> bool:
    """Whether no two groups own the same slices."""
    try:
        check_disjoint(model, groups)
    except UserError:
        return False
    return True


def check_any(
    model: nn.Module, groups: Sequence[UnitGroup], refused: dict[str, str], call: Call | None
) -> None:
    """Raise :class:`UserError` if there are no units.

    Args:
        model: The model.
        groups: What was found.
        refused: Why other modules can't be cut.
        call: The example call that was looked at; None: there was none.
    """
    if groups:
        return
    kind = type(model).__name__
    if not any(owned_sizes(model).values()):
        what = 'vectors and embeddings alone' if list(model.parameters()) else 'no parameters'
        raise UserError(f'the model has no units to prune: {kind} has {what}')
    if call is not None and any(reason.startswith(CHANGED) for reason in refused.values()):
        check_finite(dict(model.named_parameters()))
        if not gives_numbers(model, call):
            raise UserError(
                f'the output of {kind} on the example input holds NaN or infinity, so nothing can be '
                'compared; give an input on which it is finite'
            )
    names = ', '.join(type(finder).__name__ for finder in default_finders())
    tried_ones = [item for item in refused.items() if item[1].startswith('cut,')]
    told = (tried_ones or list(refused.items()))[:2]
    why = ''.join(f'; {module}: {reason}' for module, reason in told)
    if call is not None:
        raise UserError(
            f'the model has no units that can be pruned: none of the known kinds ({names}), and none '
            f'that a run on the example input shows{why}'
        )
    if has_meta_weights(model):
        raise UserError(
            f'the model has no units of the known kinds ({names}) to prune{why}; others are not looked for '
            'on the meta device, where nothing can be tried'
        )
    raise UserError(
        f'the model has no units of the known kinds ({names}) to prune{why}; to discover units of other '
        'classes set prune_cfg.profile.input_shape, e.g. (3, 224, 224), or give '
        'plan(model, example_inputs=...)'
    )


def owned_sizes(model: nn.Module) -> dict[str, int]:
    """Sizes of the weights that units may own something of, by name: all matrices but embeddings."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    weights = model.named_parameters()
    return {name: p.numel() for name, p in weights if p.dim() > 1 and id(p) not in tables}


def reach(model: nn.Module, groups: Sequence[UnitGroup]) -> float:
    """The share of the weights, embeddings aside, that units own something of."""
    cut = {c.name for group in groups for c in group.cuts}
    sizes = owned_sizes(model)
    total = sum(sizes.values())
    return sum(size for name, size in sizes.items() if name in cut) / total if total else 1.0


def example_call(
    model: nn.Module, example_inputs: Any, input_shape: Sequence[int] | None
) -> Call | None:
    """Arguments of a call that the model runs with, or None if there are none to be had.

    Args:
        model: The model.
        example_inputs: What the user gave: a tensor, a tuple, a dict or None.
        input_shape: ``prune_cfg.profile.input_shape``.

    Raises:
        UserError: what the user gave is of another type, or the model doesn't run with it.
    """
    if has_meta_weights(model):
        return None
    if example_inputs is not None:
        call = as_call(model, example_inputs)
        check_example(call)
        if not (reason := failure(model, call)):
            return call
        for features in calls_of_features(model, call):
            if not failure(model, features):
                return features
        raise UserError(
            f'example_inputs: the forward pass of {type(model).__name__} fails on them ({reason})'
        )
    shape = input_shape or (getattr(model, 'pretrained_cfg', None) or {}).get('input_size')
    example = example_input(model, 1, shape)
    if example is None:
        calls = chain(point_cloud_calls(model), image_calls(model))
        return next((c for c in calls if not failure(model, c)), None)
    call = Call(*tree_map(lifelike, example))
    return None if failure(model, call) else call


def check_example(call: Call) -> None:
    """Raise :class:`UserError` if an example has NaN, infinity or no values: nothing could be compared."""
    for value in tree_leaves(call.example):
        if isinstance(value, Tensor) and value.is_meta:
            raise UserError(
                'example_inputs are on the meta device, but the model is not; give some on its device'
            )
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            raise UserError('example_inputs hold NaN or infinite values; give finite ones')


def lifelike(value: Any) -> Any:
    """Noise in the place of zeros: a proof on zeros says little."""
    if isinstance(value, Tensor) and value.is_floating_point() and not value.any():
        generator = torch.Generator().manual_seed(0)
        return torch.randn(value.shape, generator=generator).to(value)
    return value


@torch.no_grad()
def failure(model: nn.Module, call: Call) -> str:
    """Why a call fails; empty if it doesn't."""
    try:
        with evaluation_mode(model), kept_random_state(), without_cache(model), unchanged(model):
            call.copied().on(model)
    except Exception as error:  # the model's own code may raise anything
        return ': '.join(dict.fromkeys((type(error).__name__, first_line(error))))
    return ''


@torch.no_grad()
def gives_numbers(model: nn.Module, call: Call) -> bool:
    """Whether all that a model gives on an example is finite."""
    with evaluation_mode(model), kept_random_state(), without_cache(model), unchanged(model):
        outputs = output_tensors(call.copied().on(model))
        return all(bool(x.isfinite().all()) for x in outputs if x.is_floating_point())


def as_call(model: nn.Module, example_inputs: Any) -> Call:
    """A tensor, tuple or dict as the arguments of a call.

    Raises:
        UserError: it is something else.
    """
    if isinstance(example_inputs, Tensor):
        return Call((example_inputs,), data_sample_kwargs(model, example_inputs))
    if isinstance(example_inputs, tuple | list):
        return Call(tuple(example_inputs))
    if isinstance(example_inputs, Mapping):
        return Call((), dict(example_inputs))
    raise UserError(
        f'example_inputs is a {type(example_inputs).__name__}; it must be a tensor, a tuple of '
        'positional arguments or a dict of keyword arguments'
    )

"""What is timed for a latency: the module that owns a group's units, at a few numbers of them."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...common.errors import UserError
from ...common.eval_mode import evaluation_mode
from ...common.unchanged import unchanged
from ...evaluation.example_inputs import Example
from ...structure.prune_state import PruneState
from ...structure.slimming import slim
from ...structure.unit_group import Attr, UnitGroup


def measured_counts(group: UnitGroup, points: int, round_to: int) -> Tensor:
    """Numbers of units at which to measure a group, ascending: at most ``points``, up to all.

    They are multiples of ``round_to``, as what will be left is: on GPUs other widths may take longer.
    """
    least = max(1, group.least)
    steps = torch.linspace(least, group.size, min(points, group.size))
    steps = (steps / round_to).round() * round_to
    steps[-1] = group.size  # which may be no multiple
    counts = steps[(steps >= least) & (steps <= group.size)].unique().long()
    if len(counts) > 1 or group.least == group.size:
        return counts
    return torch.tensor([group.least, group.size])


def slim_owner(model: nn.Module, group: UnitGroup, count: int) -> nn.Module:
    """A copy of the module that owns a group's units, with the first ``count`` of them, for evaluation."""
    local = relative_to(group, group.owner)
    state = PruneState({local.name: local}, {local.name: torch.arange(count)})
    holder = nn.ModuleDict({'m': deepcopy(model.get_submodule(group.owner))})
    return slim(holder, state).eval()['m']


def relative_to(group: UnitGroup, owner: str) -> UnitGroup:
    """The group as it is in a model whose only module is its owner, named ``m``."""

    def local(name: str) -> str:
        return f'm.{name.removeprefix(owner).removeprefix(".")}'.rstrip('.')

    cuts = tuple(replace(cut, name=local(cut.name)) for cut in group.cuts)
    attrs = tuple(Attr(local(a.module), a.name, a.per_unit) for a in group.attrs)
    converts, emptied = (
        tuple((local(module), converter) for module, converter in pairs)
        for pairs in (group.converts, group.emptied)
    )
    group = replace(group, name=local(group.name), owner='m')
    return replace(group, cuts=cuts, attrs=attrs, converts=converts, emptied=emptied)


@torch.no_grad()
def owner_calls(
    model: nn.Module, groups: Sequence[UnitGroup], example: Example
) -> dict[str, Example]:
    """The arguments of each owner's first call in a forward pass on ``example``, by the owner's name.

    Raises:
        UserError: an owner isn't called.
    """
    calls: dict[str, Example] = {}
    with ExitStack() as stack, evaluation_mode(model, fused=True):
        for name in {group.owner for group in groups}:
            stack.enter_context(
                recorded(model.get_submodule(name), partial(calls.setdefault, name))
            )
        with unchanged(model):
            model(*example[0], **example[1])
    for group in groups:
        if group.owner not in calls:
            raise UserError(
                f'prune_cfg.budget: {group.name} did not run on the example input, so it cannot '
                'be timed; exclude it'
            )
    return calls


@contextmanager
def recorded(module: nn.Module, record: Callable[[Example], Any]) -> Iterator[None]:
    """Have a module's arguments recorded at each call; also where its ``forward`` is called by name."""
    own, forward = vars(module).get('forward'), module.forward

    def recording(*args: Any, **kwargs: Any) -> Any:
        record((args, kwargs))
        return forward(*args, **kwargs)

    module.forward = recording
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def signature(model: nn.Module, group: UnitGroup, call: Example) -> tuple:
    """A key that is equal for groups whose owners take the same time: class, shapes and cuts."""
    owner = model.get_submodule(group.owner)
    return (
        type(owner).__name__,
        group.kind,
        tuple((cut.name.removeprefix(group.owner), cut.dim, cut.width) for cut in group.cuts),
        tuple((name, tuple(p.shape)) for name, p in owner.named_parameters()),
        input_shapes(call),
    )


def input_shapes(call: Example) -> tuple[tuple[int, ...], ...]:
    """Shapes of the tensors among a call's arguments."""
    return tuple(tuple(x.shape) for x in (*call[0], *call[1].values()) if isinstance(x, Tensor))


def layer_shape(model: nn.Module, group: UnitGroup, call: Example) -> str:
    """:func:`signature` in a few words, equal on all machines: ``Attention attention 6 8x65x384 0f9c2d1e``.

    Class of the owner, kind and number of its units, shapes of its inputs, and a digest of everything.
    """
    key = signature(model, group, call)
    return in_words((key[0], group.kind, str(group.size)), call, key)


def model_shape(model: nn.Module, example: Example) -> str:
    """The same of a whole model: ``model TimmClassifier 8x3x32x32 71b0a3d4``."""
    parameters = tuple((name, tuple(p.shape)) for name, p in model.named_parameters())
    return in_words(('model', type(model).__name__), example, (parameters, input_shapes(example)))


def in_words(words: Sequence[str], call: Example, key: tuple) -> str:
    """The words, the shapes of a call's tensors, and eight digits of the key's digest."""
    shapes = ['x'.join(map(str, shape)) for shape in input_shapes(call)]
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:8]
    return ' '.join((*words, *shapes, digest))

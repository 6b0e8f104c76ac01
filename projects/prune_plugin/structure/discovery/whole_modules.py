"""Whole layers of a residual stream, and the attentions and MLPs in them, found and proven by trying.

With all parameters at zero, such a layer gives its input, and such a branch zeros; so it can be left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...common.eval_mode import evaluation_mode
from ...common.unchanged import unchanged
from ..modules import skip_branch
from ..unit_group import Cut, UnitGroup
from .call import Call
from .captures import captured, of_features
from .proof import NO_EFFECT, Subject, without_cache
from .trials import Discovery, held, is_large, layout_of

#: Kinds of unit.
LAYER, SUBLAYER = 'layer', 'sublayer'


@dataclass
class Trials:
    """Tries whole modules of a model, each layout once.

    Attributes:
        model: The model.
        calls: Calls of its modules.
        outputs: What each called module returns that keeps its input's shape: None for a tensor, else the
            length of the tuple.
        known: Reasons by layout, empty where it passes, with the module that was tried.
        result: Gets groups, reasons and proofs.
    """

    model: nn.Module
    calls: dict[str, Call]
    outputs: dict[str, int | None]
    known: dict[tuple, tuple[str, str]] = field(default_factory=dict)
    result: Discovery = field(default_factory=Discovery)

    def passes(self, group: UnitGroup, around: str) -> bool:
        """Whether a module can be left out of the one around it.

        Args:
            group: The module.
            around: Name of the module that is run.
        """
        trial = held(UnitGroup('unit', group.kind, 1, group.cuts, around, (), group.converts))
        outer = type(self.model.get_submodule(around))
        key = (
            *layout_of(self.model, [group], self.calls[around]),
            outer,
            trial.cuts,
            trial.converts,
        )
        if key not in self.known:
            self.known[key] = around, self.tried(trial, around)
        first, why = self.known[key]
        if why:
            self.result.refused.setdefault(group.owner, why)
        else:
            self.result.refused.pop(group.owner, None)
            self.result.groups.append(group)
            how = 'tried' if first == around else f'as in {first}'
            self.result.proofs[group.name] = how
        return not why

    def tried(self, trial: UnitGroup, around: str) -> str:
        """Why it can't be left out; empty if it can."""
        try:
            subject = Subject(self.model.get_submodule(around), self.calls[around])
            if why := subject.difference([trial], 0):
                return why
            return NO_EFFECT if subject.has_no_effect([trial]) else ''
        except Exception as error:  # whatever its classes raise
            return f'it can not be copied for a trial ({type(error).__name__})'


def whole_layers(model: nn.Module, call: Call) -> Discovery:
    """Layers that only add to a residual stream.

    They are looked for in lists of modules, of which more than half must be such layers: so the blocks of
    a network are found, not its stages.

    Args:
        model: The model.
        call: An example call.
    """
    trials = watched_run(model, call, set(in_lists(model)))
    names: list[str] = []

    def look_into(path: str, module: nn.Module) -> None:
        children = [(f'{path}.{n}' if path else n, child) for n, child in module.named_children()]
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(children) > 1:
            before = len(trials.result.groups)
            left_out = [
                name
                for name, child in children
                if is_candidate(trials, name)
                and trials.passes(whole(trials, name, child, LAYER, 'SkipLayer'), name)
            ]
            if 2 * len(left_out) > len(children):
                names.extend(left_out)
            else:
                del trials.result.groups[before:]
                left_out = []
            children = [(name, child) for name, child in children if name not in left_out]
        for name, child in children:
            look_into(name, child)

    look_into('', model)
    return together(model, call, trials.result)


def whole_sublayers(model: nn.Module, call: Call, layers: list[str]) -> Discovery:
    """Attentions and MLPs of the layers of a residual stream.

    Args:
        model: The model.
        call: An example call.
        layers: Names of the layers.
    """
    inner = {
        f'{layer}.{name}'
        for layer in layers
        for name, child in model.get_submodule(layer).named_modules()
        if name and matrices(child) > 1
    }
    trials = watched_run(model, call, inner | set(layers))

    def look_into(path: str, layer: str) -> None:
        for name, child in model.get_submodule(path).named_children():
            name = f'{path}.{name}'
            if is_candidate(trials, name) and any(
                trials.passes(whole(trials, name, child, SUBLAYER, converter), layer)
                for converter in ('SkipBranch', 'SkipLayer')
            ):
                continue
            look_into(name, layer)

    for layer in layers:
        if layer in trials.calls:
            look_into(layer, layer)
    return together(model, call, trials.result)


def in_lists(model: nn.Module) -> Iterator[str]:
    """Names of modules in lists of more than one."""
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 1:
            yield from (f'{path}.{name}' if path else name for name, _ in module.named_children())


def matrices(module: nn.Module) -> int:
    """Number of weights with two dimensions or more."""
    return sum(p.dim() > 1 for p in module.parameters())


def is_candidate(trials: Trials, name: str) -> bool:
    """Whether a module runs once, keeps its input's shape and holds more than one matrix."""
    return name in trials.outputs and matrices(trials.model.get_submodule(name)) > 1


def whole(trials: Trials, name: str, module: nn.Module, kind: str, converter: str) -> UnitGroup:
    """A module as a unit."""
    cuts = tuple(Cut(f'{name}.{parameter}', None) for parameter, _ in module.named_parameters())
    how = skip_branch.spec(converter, trials.outputs[name])
    unit = name if kind == LAYER else f'{name}#whole'
    return UnitGroup(unit, kind, 1, cuts, name, converts=((name, how),))


def watched_run(model: nn.Module, call: Call, names: set[str]) -> Trials:
    """Run a model; the calls of modules, and what those return that keep their input's shape."""
    calls = captured(model, call, names)
    outputs: dict[str, int | None] = {}
    runs: dict[str, int] = dict.fromkeys(names, 0)

    def note(name: str, module: nn.Module, args: tuple, kwargs: dict[str, Any], out: Any) -> None:
        runs[name] += 1
        x = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
        y = out[0] if isinstance(out, tuple) and out else out
        if isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape:
            outputs[name] = len(out) if isinstance(out, tuple) else None

    handles = [
        model.get_submodule(name).register_forward_hook(partial(note, name), with_kwargs=True)
        for name in names
    ]
    try:
        with torch.no_grad(), evaluation_mode(model), without_cache(model), unchanged(model):
            call.copied().on(model)
    finally:
        for handle in handles:
            handle.remove()
    return Trials(model, calls, {name: n for name, n in outputs.items() if runs[name] == 1})


def together(model: nn.Module, call: Call, result: Discovery) -> Discovery:
    """All at once on the whole model; those that the model can't do without are refused."""
    if is_large(model) or not result.groups:
        return result
    subject = Subject(model, of_features(model, call), strict=True)
    groups = [held(UnitGroup(g.name, g.kind, 1, g.cuts, '', (), g.converts)) for g in result.groups]
    if not subject.difference(groups, 0):
        return result
    for own, group in zip(list(result.groups), groups, strict=True):
        if why := subject.difference([group], 0):
            result.refused[own.owner] = why
            result.groups.remove(own)
            del result.proofs[own.name]
    return result

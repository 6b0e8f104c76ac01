"""Trying on a copy whether units can go: the slim module must compute what the masked one does."""

from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...common.errors import first_line
from ...common.random_state import seeded
from ..prune_state import PruneState
from ..slimming import mask, slim
from ..unit_group import UnitGroup, named_tensors
from .call import Call
from .forward import output_tensors
from .steps import Steps

TOLERANCE = 1e-5
#: A larger difference isn't rounding, even in float32.
CLEAR = 0.01
#: What rounding may come to in float64: some norms compute in float32 whatever they get.
EXACT = 2e-6
#: Parameters of a module up to which a trial is made in float64, too.
SMALL = 4_000_000
NO_EFFECT = 'masking it changes nothing, so nothing is proven'
CHANGED = 'cut, it computes something else'
NOT_FINITE = 'it or the masked one holds NaN or infinity'
#: From this relative difference on, the masked module has given zeros, or nearly so.
VANISHED = 1e6
#: Rows of its inputs that a block is tried with: of a thousand boxes, or of many windows.
ROWS = 16
#: Seeds of more noise, where masking a group changes nothing.
ENLIVENING = (11, 12, 13)


def changed(difference: float) -> str:
    """The refusal of a module that computes something else once it is cut.

    Args:
        difference: From :func:`relative`.
    """
    if difference == float('inf'):
        return f'{CHANGED} ({NOT_FINITE})'
    how = f'by {difference:.1g}' if difference < VANISHED else 'masked, it gives next to nothing'
    return f'{CHANGED} ({how})'


class Holder(nn.Module):
    """Holds a module, so that it can be replaced.

    Args:
        held: The module.
    """

    def __init__(self, held: nn.Module):
        super().__init__()
        self.held = held


class Subject:
    """A module to try things on, with one call of it.

    Args:
        module: The module; left as it is. On trial its name is ``held``.
        call: The call.
        strict: Whether all outputs must keep their shapes; else those that don't aren't compared, as the
            attention weights that some modules return.
        seed: Of the noise that makes zeros and ones tell.
    """

    def __init__(self, module: nn.Module, call: Call, strict: bool = False, seed: int = 0):
        # Half precision would hide mistakes behind its rounding.
        self.module = in_dtype(Holder(deepcopy(module)), torch.float32, only_half=True)
        stirred(self.module, seed).eval()
        self.call, self.strict = call, strict
        self.double: Holder | None = None
        self.masked: dict[tuple, list[Tensor]] = {}
        self.error: Exception | None = None
        self.slim: nn.Module | None = None
        self.trials = self.steps = 0
        self.counts_steps = False
        self.passes_half = self.leading_only = False
        self.small = sum(p.numel() for p in module.parameters()) <= SMALL
        self.take(call.first_rows(ROWS))
        self.take(self.call.with_noise(seed))

    def take(self, call: Call) -> None:
        """Take another call, if the module runs with it as well."""
        if call is self.call:
            return
        before, self.call = self.call, call
        try:
            fine = all(bool(x.isfinite().any()) for x in self.run(self.module))
        except Exception:  # whatever the module raises
            fine = False
        if not fine:
            self.call = before

    def as_double(self) -> Holder | None:
        """The module in float64; None if its own code insists on another type."""
        if self.double is None:
            self.double = in_dtype(deepcopy(self.module), torch.float64)
            try:
                self.run(self.double)
            except Exception:  # whatever the module raises
                self.double = self.module
        return None if self.double is self.module else self.double

    @torch.no_grad()
    def run(self, module: Holder, seed: int = 0) -> list[Tensor]:
        """All tensors that the call gives.

        Args:
            module: What is called.
            seed: Of the numbers that it draws.
        """
        call = self.call.copied()
        dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)
        if dtype is not None:
            call = call.in_dtype(dtype)
        with without_cache(module), seeded(seed):  # what draws numbers draws the same
            out = call.on(module.held)
        return [x for x in output_tensors(out) if x.is_floating_point()]

    def masked_outputs(self, module: Holder, state: PruneState, seed: int) -> list[Tensor]:
        """What the masked module gives; it doesn't depend on attributes."""
        key = (
            seed,
            module is self.module,
            *((g.name, g.size, g.cuts) for g in state.groups.values()),
        )
        if key not in self.masked:
            self.masked[key] = self.run(masked_copy(module, state))
        return self.masked[key]

    def difference(self, groups: Sequence[UnitGroup], seed: int) -> str:
        """Cut and mask a copy; why they aren't equal, or nothing.

        Args:
            groups: The groups to cut, all at once.
            seed: Says which units are kept.
        """
        state = self.state(groups, seed)
        worst = self.compare(self.module, state, seed)
        if isinstance(worst, float) and TOLERANCE < worst < CLEAR:  # in float32 it may be rounding
            if (double := self.as_double()) is not None:
                worst = self.compare(double, state, seed)
            elif worst <= 10 * TOLERANCE:
                return ''
        if isinstance(worst, str):
            return worst
        return '' if worst <= TOLERANCE else changed(worst)

    @staticmethod
    def state(groups: Sequence[UnitGroup], seed: int) -> PruneState:
        """What is kept: of each group another share, so that sums and ratios of widths are tried, too."""
        generator = torch.Generator().manual_seed(seed)
        kept = {g.name: subset(g, seed + i, generator) for i, g in enumerate(groups)}
        return PruneState({g.name: g for g in groups}, kept)

    def has_no_effect(self, groups: Sequence[UnitGroup]) -> bool:
        """Whether the masked module gives the very same as the module itself."""
        before = self.run(self.module)
        after = self.masked_outputs(self.module, self.state(groups, 0), 0)
        return all(
            a.shape == b.shape and torch.equal(a, b) for a, b in zip(before, after, strict=False)
        )

    def enliven(self, groups: Sequence[UnitGroup]) -> bool:
        """Stir the module anew until masking has an effect, as neurons may be dead; whether it has one."""
        for seed in ENLIVENING:
            stirred(self.module, seed, strength=1.0)
            self.masked.clear()
            self.double = None
            if not self.has_no_effect(groups):
                return True
        return False

    def compare(self, module: Holder, state: PruneState, seed: int) -> float | str:
        """The largest relative difference of the slim and the masked module, or what fails."""
        self.error, steps = None, Steps()
        slimmed = copied(module)
        self.slim = slimmed
        try:
            masked = self.masked_outputs(module, state, seed)
            slim(slimmed, state)
            with steps if self.counts_steps else nullcontext():
                outputs = self.run(slimmed)
        except Exception as error:  # whatever the module raises with smaller tensors
            self.error, self.steps = error, steps.number
            return f'cut, it fails ({type(error).__name__}: {first_line(error)[:400]})'
        pairs = [(a, b) for a, b in zip(outputs, masked, strict=False) if a.shape == b.shape]
        pairs = pairs[:1] if self.leading_only else pairs
        if not pairs or (self.strict and not len(pairs) == len(outputs) == len(masked)):
            return 'cut, its output has another shape'
        return max(relative(a, b) for a, b in pairs)

    def fails(self, groups: Sequence[UnitGroup]) -> str:
        """:meth:`difference` for several choices of units; for small modules confirmed in float64."""
        if why := self.difference(groups, 0):
            return why
        self.passes_half = True
        if self.has_no_effect(groups):
            if not self.enliven(groups):
                return NO_EFFECT
            if why := self.difference(groups, 0):
                return why
        for seed in (1, 2):
            if why := self.difference(groups, seed):
                return why
        if self.small and (double := self.as_double()) is not None:
            worst = self.compare(double, self.state(groups, 0), 0)
            if isinstance(worst, str) or worst > EXACT:
                return worst if isinstance(worst, str) else changed(worst)
        return ''

    def is_relaxed(self) -> bool:
        """Compare the first output alone from now on, if there are more: means over heads follow these.

        Whether anything reads the others is then for a trial of the whole model to show.
        """
        if self.strict or self.leading_only or len(self.run(self.module)) < 2:
            return False
        self.leading_only = True
        return True


class without_cache:
    """Hugging Face's models don't keep keys and values in the block."""

    def __init__(self, model: nn.Module):
        self.configs = {
            id(config): config
            for module in model.modules()
            if (config := getattr(module, 'config', None)) is not None
            and getattr(config, 'use_cache', None) is True
        }

    def __enter__(self) -> None:
        for config in self.configs.values():
            config.use_cache = False

    def __exit__(self, *error: Any) -> None:
        for config in self.configs.values():
            config.use_cache = True


def copied(module: Holder, masked: PruneState | None = None) -> Holder:
    """A copy that shares its tensors, but for those that masking by a state changes."""
    own = set()
    for group in masked.groups.values() if masked else ():
        own |= {cut.name for cut in group.cuts}
    tensors = named_tensors(module)
    own_ids = {
        id(tensors[name]) for name in own if name in tensors
    }  # they may have other names, too
    shared = {id(tensor): tensor for tensor in tensors.values() if id(tensor) not in own_ids}
    return deepcopy(module, shared)


def masked_copy(module: Holder, state: PruneState) -> Holder:
    """A copy, masked; masks don't change attributes."""
    masked = copied(module, state)
    mask(masked, without_attrs(state))
    return masked


def without_attrs(state: PruneState) -> PruneState:
    """The same units; masks don't change attributes."""
    groups = {name: replace(group, attrs=()) for name, group in state.groups.items()}
    return PruneState(groups, state.kept)


def is_half(dtype: torch.dtype) -> bool:
    """Whether a type has fewer digits than float32."""
    return torch.finfo(dtype).eps > torch.finfo(torch.float32).eps


def in_dtype(module: Holder, dtype: torch.dtype, only_half: bool = False) -> Holder:
    """All floating-point tensors of a module, or those of half precision alone, in another type."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() and (is_half(tensor.dtype) or not only_half):
            tensor.data = tensor.data.to(dtype)
    return module


def relative(first: Tensor, second: Tensor) -> float:
    """The largest difference, relative to the largest value; NaN and infinity must be alike."""
    if not second.numel():
        return 0.0
    finite = second.isfinite()
    if not torch.equal(finite, first.isfinite()):
        return float('inf')
    first, second = first[finite], second[finite]
    if not second.numel():
        return float('inf')  # nothing to compare proves nothing
    return float((first - second).abs().max() / second.abs().max().clamp(min=1e-30))


def subset(group: UnitGroup, seed: int, generator: torch.Generator) -> Tensor:
    """Units to keep: half of them, the fewest, or all but one, by turns; nothing of a whole module."""
    if group.is_whole:
        return torch.arange(0)
    least = max(1, group.least)
    count = (max(least, group.size // 2), least, max(least, group.size - 1))[seed % 3]
    return torch.randperm(group.size, generator=generator)[:count].sort().values


@torch.no_grad()
def stirred(module: nn.Module, seed: int, strength: float = 0.1) -> nn.Module:
    """With noise on parameters and statistics: what is zero or one at the start hides mistakes.

    Args:
        module: The module; changed in place.
        seed: Of the noise.
        strength: Its size relative to the spread of each parameter.
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.is_floating_point() and parameter.numel():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            scale = float(parameter.float().std()) if parameter.numel() > 1 else 0.0
            parameter.add_(noise * max(strength * scale, 0.1 * strength))
    for name, buffer in module.named_buffers():
        if name.endswith('running_mean'):
            buffer.add_(torch.randn(buffer.shape, generator=generator).to(buffer) * 0.1)
        elif name.endswith('running_var'):
            buffer.mul_(torch.rand(buffer.shape, generator=generator).to(buffer) + 0.5)
    return module

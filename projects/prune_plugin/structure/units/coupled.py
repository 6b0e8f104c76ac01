"""Widths that several layers share: stages, concatenations, the residual stream of a transformer."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from ...common.errors import UserError, first_line
from ...common.eval_mode import evaluation_mode
from ...common.registry import UNITS
from ...common.unchanged import unchanged
from ...common.validation import check_shape
from ..discovery.call import Call
from ..discovery.candidates import Candidate
from ..discovery.captures import captured
from ..discovery.discover import discover_units
from ..unit_group import UnitGroup
from .finder import UnitFinder, join


@UNITS.register_module()
class CoupledChannels(UnitFinder):
    """Channels in all layers that share them: stages of a network, concatenations, a residual stream.

    They are found by what the model computes on an example, and each is tried on a copy (see
    ``discover_units``). Norms over a width that shrinks become ``SlimLayerNorm`` or ``SlimRMSNorm``, which
    count removed features as zeros. Neurons and channels inside of blocks count as well, heads don't; what
    the finders beside this one find is left to them.

    Not among the default units.

    Args:
        input_shape: Shape of one input without the batch dimension, ``(3, 224, 224)``. Default: the example
            input of the whole model.
        submodule: Look only at this submodule (``'backbone'``), whose outputs stay as wide as they are.
            Default: the whole model.
        shared: Whether to take only widths that several layers write to.

    Example:
        >>> prune_cfg = dict(units=[dict(type='CoupledChannels', input_shape=(3, 32, 32))])
        >>> prune_cfg = dict(units=[  # heads, neurons and the residual stream of a transformer
        ...     dict(type='AttentionHeads'), dict(type='FFNNeurons'), dict(type='CoupledChannels')])
    """

    default = False
    runs_model = True

    def __init__(
        self,
        input_shape: Sequence[int] | None = None,
        submodule: str = '',
        shared: bool = False,
    ):
        if input_shape is not None:
            check_shape('input_shape', input_shape)
            input_shape = tuple(input_shape)
        if not isinstance(shared, bool):
            raise UserError(f'shared is {shared!r}; it must be True or False')
        self.input_shape, self.submodule, self.shared = input_shape, submodule, shared

    def find(self, model: nn.Module) -> tuple[list[UnitGroup], dict[str, str]]:
        """See :meth:`UnitFinder.find`.

        Raises:
            UserError: there is no such submodule, no example input, or the model doesn't run on it.
        """
        return self.find_besides(model, [])

    def find_besides(
        self, model: nn.Module, known: Sequence[UnitGroup]
    ) -> tuple[list[UnitGroup], dict[str, str]]:
        """See :meth:`UnitFinder.find_besides`."""
        if self.submodule not in dict(model.named_modules()):
            raise UserError(
                f'prune_cfg.units: CoupledChannels.submodule {self.submodule!r} is not in the model'
            )
        part = model.get_submodule(self.submodule)
        if any(parameter.is_meta for parameter in model.parameters()):
            raise UserError(
                'prune_cfg.units: CoupledChannels runs the model, which has no weights on the meta device; '
                'leave it out, or build the model with weights'
            )
        call = self.call_of(model, part)
        self.check_runs(part, call)
        inside = [group for group in map(self.within, known) if group is not None]
        result = discover_units(part, call, inside, self.chosen)
        self.proofs = {join(self.submodule, n): how for n, how in result.proofs.items()}
        groups = [self.in_model(group) for group in result.groups]
        return groups, {join(self.submodule, n): why for n, why in result.refused.items()}

    def check_runs(self, part: nn.Module, call: Call) -> None:
        """Raise :class:`UserError` unless the submodule runs on the example."""
        try:
            with torch.no_grad(), evaluation_mode(part), unchanged(part):
                call.copied().on(part)
        except Exception as error:  # the model's own code may raise anything
            where = self.submodule or 'the model'
            raise UserError(
                f'prune_cfg.units: CoupledChannels: {where} does not run on '
                f'{self.input_shape or "the example input"} ({type(error).__name__}: {first_line(error)})'
            ) from error

    def chosen(self, found: list[Candidate]) -> list[Candidate]:
        """Of candidates those that are channels, under one kind."""
        kept = [c for c in found if not c.attended and (c.added or not self.shared)]
        return [replace(candidate, added=True) for candidate in kept]

    def call_of(self, model: nn.Module, part: nn.Module) -> Call:
        """An example call of the submodule.

        Raises:
            UserError: there is none.
        """
        if self.input_shape is not None:
            like = next(part.parameters())
            generator = torch.Generator().manual_seed(0)
            return Call((torch.randn(1, *self.input_shape, generator=generator).to(like),))
        call = self.example() if self.example is not None else None
        if call is None:
            raise UserError(
                'prune_cfg.units: CoupledChannels needs an example input: set its input_shape or '
                'prune_cfg.profile.input_shape, or give plan(model, example_inputs=...)'
            )
        if not self.submodule:
            return call
        calls = captured(model, call, {self.submodule})
        if self.submodule not in calls:
            raise UserError(
                f'prune_cfg.units: CoupledChannels.submodule {self.submodule!r} is not called with the '
                'example input; set input_shape'
            )
        return calls[self.submodule]

    def within(self, group: UnitGroup) -> UnitGroup | None:
        """A group of the model with the names that it has in the submodule; None if it is elsewhere."""
        prefix = f'{self.submodule}.' if self.submodule else ''
        names = [cut.name for cut in group.cuts] + [name for name, _ in group.converts]
        if not all(name.startswith(prefix) for name in names):
            return None
        return replace(
            group,
            name=group.name.removeprefix(prefix),
            cuts=tuple(replace(c, name=c.name.removeprefix(prefix)) for c in group.cuts),
            owner=group.owner.removeprefix(prefix),
            attrs=tuple(replace(a, module=a.module.removeprefix(prefix)) for a in group.attrs),
            converts=tuple((name.removeprefix(prefix), how) for name, how in group.converts),
        )

    def in_model(self, group: UnitGroup) -> UnitGroup:
        """The inverse of :meth:`within`."""
        if not self.submodule:
            return group

        def whole(name: str) -> str:
            return f'{self.submodule}.{name}' if name else self.submodule

        return replace(
            group,
            name=whole(group.name),
            cuts=tuple(replace(cut, name=whole(cut.name)) for cut in group.cuts),
            owner=whole(group.owner),
            attrs=tuple(replace(attr, module=whole(attr.module)) for attr in group.attrs),
            converts=tuple((whole(name), how) for name, how in group.converts),
        )

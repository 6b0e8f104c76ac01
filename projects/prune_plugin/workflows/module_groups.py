"""A model in parts that can be pruned alone, each at its own ratio."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..methods.allocators.base import rounded_floors
from ..methods.constraint import least_counts
from ..methods.pruners import Pruner
from ..methods.rounding import RoundTo, round_to_of
from ..structure.prune_state import PruneState
from ..structure.unit_group import UnitGroup


@dataclass(frozen=True)
class ModuleGroup:
    """What is pruned together: the unit groups of one kind in one module.

    Attributes:
        module: The module's path.
        kind: What a unit is.
        groups: Its unit groups.
        scores: Importance of every unit, one vector per group.
        floors: Fewest units that each group keeps.
    """

    module: str
    kind: str
    groups: tuple[UnitGroup, ...]
    scores: tuple[Tensor, ...]
    floors: tuple[int, ...]

    @property
    def units(self) -> int:
        """Units of all its groups."""
        return sum(group.size for group in self.groups)

    def state(self, ratio: float, round_to: RoundTo = 1) -> PruneState:
        """The prune state in which each group loses the share ``ratio`` of its least important units.

        Half a unit counts as one. A floor, or a multiple of ``round_to`` to be kept, lowers the
        number, down to none.
        """
        kept = {}
        for group, score, floor in zip(self.groups, self.scores, self.floors, strict=True):
            wanted = group.size - int(ratio * group.size + 0.5 + 1e-9)
            sizes = torch.tensor([group.size])
            chunk = round_to_of(round_to, group)
            count = int(rounded_floors(torch.tensor([max(wanted, floor)]), sizes, chunk))
            order = score.sort(stable=True).indices
            kept[group.name] = order[group.size - count :].sort().values
        asked = {'budget': 'units', 'ratio': ratio}
        return PruneState({group.name: group for group in self.groups}, kept, asked)


def module_groups(
    model: nn.Module,
    groups: Sequence[UnitGroup],
    scores: Sequence[Tensor],
    pruner: Pruner,
) -> list[ModuleGroup]:
    """The parts of a model, in the order of its modules.

    Args:
        model: The model.
        groups: Its unit groups.
        scores: Importance of their units.
        pruner: Says how many units must stay. Of whole layers any one may go, as long as
            ``min_keep`` others stay.
    """
    floors = least_counts(groups, scores, pruner.min_keep)
    for kind in {group.kind for group in groups if group.is_whole}:
        layers = [number for number, group in enumerate(groups) if group.kind == kind]
        if len(layers) > pruner.min_keep:
            floors[layers] = 0
    members: dict[tuple[str, str], list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault((group.owner or group.name, group.kind), []).append(number)
    parts = [
        ModuleGroup(
            module,
            kind,
            tuple(groups[n] for n in numbers),
            tuple(scores[n] for n in numbers),
            tuple(int(floors[n]) for n in numbers),
        )
        for (module, kind), numbers in members.items()
    ]
    place = {name: number for number, (name, _) in enumerate(model.named_modules())}
    return sorted(parts, key=lambda part: place.get(part.module, len(place)))

"""`prune_cfg.round_to`: what is left of a group is a multiple of a number, one for all or one per kind."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.validation import at_least
from ..structure.unit_group import UnitGroup

KEY = 'prune_cfg.round_to'
#: A number for all groups, or one for each kind of unit; kinds that aren't named have 1.
RoundTo = int | Mapping[str, int]


def checked_round_to(value: Any) -> RoundTo:
    """The setting as a number or a dict; None is 1.

    Raises:
        UserError: it is neither, or a number in it isn't whole and >= 1.
    """
    if value is None:
        return 1
    if not isinstance(value, Mapping):
        at_least(KEY, value, 1)
        return value
    if not value:
        raise UserError(f'{KEY} is an empty dict; name kinds of units')
    for kind, number in value.items():
        at_least(f'{KEY}.{kind}', number, 1)
    return dict(value)


def check_kinds(round_to: RoundTo, groups: Sequence[UnitGroup]) -> None:
    """Raise :class:`UserError` if a kind is named that no unit is of."""
    kinds = dict.fromkeys(group.kind for group in groups)
    for kind in round_to if isinstance(round_to, Mapping) else ():
        if kind not in kinds:
            raise UserError(f'{KEY}.{kind}: no units are of this kind; here are {", ".join(kinds)}')


def round_to_of(round_to: RoundTo, group: UnitGroup) -> int:
    """The number for one group."""
    return round_to.get(group.kind, 1) if isinstance(round_to, Mapping) else round_to


def round_to_of_groups(round_to: RoundTo, groups: Sequence[UnitGroup]) -> int | Tensor:
    """The number for all groups, or where it differs by kind one for each, LongTensor (groups,)."""
    if not isinstance(round_to, Mapping):
        return round_to
    return torch.tensor([round_to_of(round_to, group) for group in groups], dtype=torch.long)


def per_group(round_to: int | Tensor, groups: int) -> list[int]:
    """The same as one number for each group."""
    return torch.as_tensor(round_to).expand(groups).tolist()

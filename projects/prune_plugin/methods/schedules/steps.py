"""A schedule of listed targets, each with its own calibration and training settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...common.errors import UserError
from ...common.registry import SCHEDULES
from ...common.validation import checked_ratio
from .base import Schedule


def nonempty_list(name: str, value: Any) -> list:
    """``value`` as a list.

    Raises:
        UserError: it is no sequence, or empty.
    """
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise UserError(f'{name} is {value!r}; it must be a list, one entry per step')
    return list(value)


@SCHEDULES.register_module()
class Steps(Schedule):
    """Prunes to one listed ratio after the other; the last is the target.

    Args:
        ratios: Fraction of the dense model removed after each round, ascending.
        calibration: None, or for each round the keys of ``prune_cfg.calibration`` that it overrides.
        recovery: None, or for each round the keys of ``prune_cfg.recovery`` that it overrides.
        lr_decay: See :class:`Schedule`.
        rewind: See :class:`Schedule`.

    Example:
        >>> prune_cfg = dict(type='WeightPruner', sparsifier=dict(type='SparseGPT'),
        ...     schedule=dict(type='Steps', ratios=[0.5, 0.7, 0.9],
        ...         calibration=[dict(num_samples=n) for n in (64, 128, 256)]))
    """

    def __init__(
        self,
        ratios: Sequence[float],
        calibration: Sequence[Mapping] | None = None,
        recovery: Sequence[Mapping] | None = None,
        lr_decay: float = 1.0,
        rewind: str | int | None = None,
    ):
        super().__init__(lr_decay, rewind)
        key = 'prune_cfg.schedule.ratios'
        self._ratios = [
            checked_ratio(r, f'{key}[{i}]') for i, r in enumerate(nonempty_list('ratios', ratios))
        ]
        if any(b <= a for a, b in zip(self._ratios, self._ratios[1:], strict=False)):
            raise UserError(f'ratios is {list(ratios)}; each must be larger than the one before')
        self.own_ratio = self._ratios[-1]
        self.calibration = self.per_step('calibration', calibration)
        self.recovery = self.per_step('recovery', recovery)

    def per_step(self, name: str, blocks: Sequence[Mapping] | None) -> list[Mapping]:
        """One dict of overrides per round; empty dicts for None.

        Raises:
            UserError: ``blocks`` isn't a list of as many dicts as there are ratios.
        """
        if blocks is None:
            return [{}] * len(self._ratios)
        blocks = nonempty_list(name, blocks)
        if len(blocks) != len(self._ratios):
            raise UserError(
                f'{name} has {len(blocks)} entries for {len(self._ratios)} ratios; give one for each'
            )
        for number, block in enumerate(blocks):
            if not isinstance(block, Mapping):
                raise UserError(f'{name}[{number}] is {block!r}; it must be a dict')
        return blocks

    def ratios(self, target):
        """See :meth:`Schedule.ratios`."""
        last = self._ratios[-1]
        if abs(target - last) > 1e-9:
            raise UserError(
                f"ratios ends with {last}, but the budget's ratio is {target}; leave the "
                "budget's out, or make them agree"
            )
        return list(self._ratios)

    def overrides(self, number):
        """See :meth:`Schedule.overrides`."""
        return self.calibration[number - 1], self.recovery[number - 1]

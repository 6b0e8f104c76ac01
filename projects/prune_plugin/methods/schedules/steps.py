"""Targets as listed, each with its own data and training."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...common.errors import UserError
from ...common.registry import SCHEDULES
from ...common.validation import checked_ratio
from .base import Schedule


def listed(name: str, value: Any) -> list:
    """``value`` as a list with something in it."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise UserError(f'{name} is {value!r}; it must be a list, one entry per step')
    return list(value)


@SCHEDULES.register_module()
class Steps(Schedule):
    """Goes from one listed ratio to the next; the last is the target.

    Args:
        ratios: Fractions removed after each step, of the dense model, ascending.
        calibration: None, or for each step the keys of ``prune_cfg.calibration`` that differ.
        recovery: None, or for each step the keys of ``prune_cfg.recovery`` that differ.
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
            checked_ratio(r, f'{key}[{i}]') for i, r in enumerate(listed('ratios', ratios))
        ]
        if any(b <= a for a, b in zip(self._ratios, self._ratios[1:], strict=False)):
            raise UserError(f'ratios is {list(ratios)}; each must be larger than the one before')
        self.own_ratio = self._ratios[-1]
        self.calibration = self.per_step('calibration', calibration)
        self.recovery = self.per_step('recovery', recovery)

    def per_step(self, name: str, blocks: Sequence[Mapping] | None) -> list[Mapping]:
        """One dict for each step."""
        if blocks is None:
            return [{}] * len(self._ratios)
        blocks = listed(name, blocks)
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
        if abs(target - self.own_ratio) > 1e-9:
            raise UserError(
                f"ratios ends with {self.own_ratio}, but the budget's ratio is {target}; leave the "
                "budget's out, or make them agree"
            )
        return list(self._ratios)

    def overrides(self, number):
        """See :meth:`Schedule.overrides`."""
        return self.calibration[number - 1], self.recovery[number - 1]

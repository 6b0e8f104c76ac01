"""Geometric schedule: every round removes the same fraction of what remains."""

from math import log1p

from ...common.errors import UserError
from ...common.registry import SCHEDULES
from ...common.validation import at_least, is_number
from .base import MOST_ROUNDS, Schedule

#: The share without ``share`` and ``rounds``.
DEFAULT_SHARE = 0.1


@SCHEDULES.register_module()
class Geometric(Schedule):
    """Each round removes the fraction ``share`` of what remains; the last one ends exactly at the target.

    After n rounds ``(1 - share) ** n`` remains: a share of 0.1 takes 22 rounds to a ratio of 0.9. Of share,
    rounds and the budget's ratio, two define the third.

    Args:
        share: Fraction of what remains that a round removes, in (0, 1). None: the one that leads to the
            budget's ratio in ``rounds`` rounds, or 0.1 without ``rounds``.
        rounds: Number of rounds. Together with ``share`` it defines the target.
        max_rounds: If the target takes more rounds, that is an error. None: no limit.
        lr_decay: See :class:`Schedule`.
        rewind: See :class:`Schedule`.

    Source: Han et al., "Learning both Weights and Connections", arXiv 1506.02626.

    Example:
        >>> prune_cfg = dict(type='WeightPruner', budget=dict(ratio=0.9),
        ...     schedule=dict(type='Geometric', share=0.1))
    """

    def __init__(
        self,
        share: float | None = None,
        rounds: int | None = None,
        max_rounds: int | None = None,
        lr_decay: float = 1.0,
        rewind: str | int | None = None,
    ):
        super().__init__(lr_decay, rewind)
        if share is None and rounds is None:
            share = DEFAULT_SHARE
        if share is not None and (not is_number(share) or not 0 < share < 1):
            raise UserError(
                f'share is {share!r}; it must be a number in (0, 1), the fraction of what remains that '
                'each round removes'
            )
        if rounds is not None:
            at_least('rounds', rounds, 1, MOST_ROUNDS)
        if max_rounds is not None:
            at_least('max_rounds', max_rounds, 1)
        self.share = None if share is None else float(share)
        self.number, self.max_rounds = rounds, max_rounds
        if self.share is not None and rounds is not None:
            self.own_ratio = 1 - (1 - self.share) ** rounds

    def ratios(self, target: float) -> list[float]:
        """See :meth:`Schedule.ratios`."""
        if self.number is not None:
            return self._ratios_in(self.number, target)
        share = DEFAULT_SHARE if self.share is None else self.share
        if log1p(-target) < MOST_ROUNDS * log1p(-share):
            raise UserError(
                f'share is {share}; at ratio {target} that takes more than {MOST_ROUNDS} rounds, so '
                'raise it'
            )
        ratios, remaining = [], 1 - share
        while 1 - remaining < target - 1e-9:
            ratios.append(1 - remaining)
            remaining *= 1 - share
        ratios.append(target)
        if self.max_rounds is not None and len(ratios) > self.max_rounds:
            raise UserError(
                f'max_rounds is {self.max_rounds}, but ratio {target} with share {share} takes '
                f'{len(ratios)} rounds; raise max_rounds or share, or lower the ratio'
            )
        return ratios

    def _ratios_in(self, rounds: int, target: float) -> list[float]:
        """Ratios that remove equal fractions of what remains in a given number of rounds."""
        if self.own_ratio is not None and abs(target - self.own_ratio) > 1e-9:
            raise UserError(
                f'share {self.share} and rounds {rounds} lead to {self.own_ratio:.6g}, but the '
                f"budget's ratio is {target}; leave one of the three out"
            )
        return [1 - (1 - target) ** (k / rounds) for k in range(1, rounds)] + [target]

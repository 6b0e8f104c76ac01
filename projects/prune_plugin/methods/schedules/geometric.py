"""A share of what is left, round after round."""

from math import log1p

from ...common.errors import UserError
from ...common.registry import SCHEDULES
from ...common.validation import at_least, is_number
from .base import MOST_ROUNDS, Schedule


@SCHEDULES.register_module()
class Geometric(Schedule):
    """Removes a share of what remains in each round; the last goes exactly to the target.

    After n rounds ``(1 - share) ** n`` is left: a share of 0.1 takes 22 rounds to 0.9. Given are two
    of share, rounds and the budget's ratio.

    Args:
        share: Fraction of what remains, in (0, 1); None: as ``rounds`` take to the budget's ratio.
        rounds: How many. With a share they say what the target is.
        max_rounds: A guard: a target that takes more rounds is an error. None: any number will do.
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
            share = 0.1
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
        if share is not None and rounds is not None:
            self.own_ratio = 1 - (1 - self.share) ** rounds

    def ratios(self, target):
        """See :meth:`Schedule.ratios`."""
        if self.number is not None:
            if self.own_ratio is not None and abs(target - self.own_ratio) > 1e-9:
                raise UserError(
                    f'share {self.share} and rounds {self.number} lead to {self.own_ratio:.6g}, but the '
                    f"budget's ratio is {target}; leave one of the three out"
                )
            n = self.number
            return [1 - (1 - target) ** (k / n) for k in range(1, n)] + [target]
        if log1p(-target) < MOST_ROUNDS * log1p(-self.share):
            raise UserError(
                f'share is {self.share}; at ratio {target} that takes more than {MOST_ROUNDS} rounds, so '
                'raise it'
            )
        ratios, left = [], 1 - self.share
        while 1 - left < target - 1e-9:
            ratios.append(1 - left)
            left *= 1 - self.share
        ratios.append(target)
        if self.max_rounds is not None and len(ratios) > self.max_rounds:
            raise UserError(
                f'max_rounds is {self.max_rounds}, but ratio {target} with share {self.share} takes '
                f'{len(ratios)} rounds; raise max_rounds or share, or lower the ratio'
            )
        return ratios

"""A share of what is left, round after round."""

from ..errors import UserError
from ..registry import SCHEDULES
from ..settings import at_least
from .base import Schedule


@SCHEDULES.register_module()
class Geometric(Schedule):
    """Removes a share of the remaining weights in each round; the last goes exactly to the target.

    After n rounds ``(1 - share) ** n`` is left: a share of 0.1 takes 22 rounds to 0.9.

    Args:
        share: Fraction of the remaining weights, in (0, 1).
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
        share: float = 0.1,
        max_rounds: int | None = None,
        lr_decay: float = 1.0,
        rewind: str | None = None,
    ):
        super().__init__(lr_decay, rewind)
        number = isinstance(share, int | float) and not isinstance(share, bool)
        if not number or not 0 < share < 1:
            raise UserError(
                f'share is {share!r}; it must be a number in (0, 1), the fraction of the remaining '
                'weights that each round removes'
            )
        if max_rounds is not None:
            at_least('max_rounds', max_rounds, 1)
        self.share, self.max_rounds = float(share), max_rounds

    def ratios(self, target):
        """See :meth:`Schedule.ratios`."""
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

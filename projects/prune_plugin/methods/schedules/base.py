"""What a schedule is: the target of each round, and what changes from round to round."""

from collections.abc import Mapping
from dataclasses import dataclass

from ...calibration.settings import CalibrationSettings
from ...common.errors import UserError
from ...common.validation import is_number
from ...training.settings import RecoverySettings


@dataclass(frozen=True)
class Round:
    """One prune-train cycle.

    Attributes:
        number: From 1.
        ratio: Fraction removed after its pruning, of the dense model.
        calibration: Data for its pruning.
        recovery: Its training; the learning rate is still to be multiplied by ``lr_scale``.
        lr_scale: Factor on the learning rate.
    """

    number: int
    ratio: float
    calibration: CalibrationSettings
    recovery: RecoverySettings
    lr_scale: float


#: Rounds of a schedule, at most: each trains, and a share next to 0 would never arrive.
MOST_ROUNDS = 10_000


class Schedule:
    """Base of the schedules.

    Args:
        lr_decay: Factor on the learning rate of recovery from each round to the next, in (0, 1].
        rewind: None, or ``'initial'``: after each pruning, the weights that stay go back to what
            they are in the model that was pruned first. In an IterativePruneLoop also a number: to what
            they were after that epoch of its first state.
    """

    #: The target that the schedule itself prescribes, or None.
    own_ratio: float | None = None

    def __init__(self, lr_decay: float = 1.0, rewind: str | int | None = None):
        if not is_number(lr_decay):
            raise UserError(f'lr_decay is {lr_decay!r}; it must be a number in (0, 1]')
        if not 0 < lr_decay <= 1:
            raise UserError(f'lr_decay is {lr_decay}; it must be in (0, 1], 1 for a constant rate')
        epoch = isinstance(rewind, int) and not isinstance(rewind, bool) and rewind >= 0
        if rewind not in (None, 'initial') and not epoch:
            raise UserError(
                f"rewind is {rewind!r}; valid are None, 'initial' and the number of an epoch"
            )
        self.lr_decay, self.rewind = float(lr_decay), rewind

    def ratios(self, target: float) -> list[float]:
        """Fraction removed after each round, of the dense model: ascending, the last is ``target``.

        Raises:
            UserError: the schedule doesn't lead to this target.
        """
        raise NotImplementedError

    def overrides(self, number: int) -> tuple[Mapping, Mapping]:
        """Keys of ``calibration`` and of ``recovery`` that differ in round ``number`` (from 1)."""
        return {}, {}

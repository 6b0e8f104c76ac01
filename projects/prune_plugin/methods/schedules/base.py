"""Base class of the schedules: the target of each round, and what changes from round to round."""

from collections.abc import Mapping
from dataclasses import dataclass

from ...calibration.settings import CalibrationSettings
from ...common.errors import UserError
from ...common.validation import is_number
from ...training.settings import RecoverySettings


@dataclass(frozen=True)
class Round:
    """One cycle of pruning and training.

    Attributes:
        number: From 1.
        ratio: Fraction of the dense model removed after this round's pruning.
        calibration: Calibration settings of this round.
        recovery: Training settings of this round, without ``lr_scale``.
        lr_scale: Factor on the learning rate of ``recovery``.
    """

    number: int
    ratio: float
    calibration: CalibrationSettings
    recovery: RecoverySettings
    lr_scale: float


#: Maximum number of rounds: each of them trains, and a share close to 0 would take forever.
MOST_ROUNDS = 10_000


class Schedule:
    """Base of the schedules.

    Args:
        lr_decay: Factor on the learning rate of recovery from each round to the next, in (0, 1].
        rewind: None, or ``'initial'``: after each pruning, kept weights are reset to their values in the
            dense model. In an IterativePruneLoop also an epoch number: to their values after that epoch of
            the loop's first state.

    Raises:
        UserError: a value isn't valid.
    """

    #: The target that the schedule's own arguments define, or None.
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
        """Fraction of the dense model removed after each round, ascending; the last is ``target``.

        Args:
            target: The budget's ratio, the fraction removed.

        Raises:
            UserError: the schedule doesn't lead to this target.
        """
        raise NotImplementedError

    def overrides(self, number: int) -> tuple[Mapping, Mapping]:
        """The keys of ``prune_cfg.calibration`` and ``prune_cfg.recovery`` that round ``number`` overrides.

        Args:
            number: From 1.
        """
        return {}, {}

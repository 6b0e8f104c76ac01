"""Base class of the penalties, which shrink the units to remove towards zero during training."""

from math import inf

from torch import Tensor

from ...common.validation import check_number


class Penalty:
    """Base of the penalties: adds ``at(step) * factor * w`` to the gradient of each weight w to remove.

    Args:
        strength: The largest value of :meth:`at`, > 0. Times the learning rate it should be below 1.

    Raises:
        UserError: a value isn't valid.
    """

    #: Whether :meth:`factors` needs the units' norms.
    needs_norms = False

    def __init__(self, strength: float):
        check_number('strength', strength, 0, inf)
        self.strength = float(strength)

    def at(self, step: int, steps: int) -> float:
        """The strength of the penalty at an optimizer step.

        Args:
            step: Number of the step within the current state, from 0.
            steps: Total number of steps of the state.
        """
        raise NotImplementedError

    def factors(self, norms: Tensor | None) -> Tensor | float:
        """Factors on the weights of each unit, which give the gradient of the penalty at strength 1.

        Args:
            norms: Euclidean norm of each unit to remove, (units,), if ``needs_norms``; else None.

        Returns:
            (units,), or one number for all units.
        """
        return 1.0

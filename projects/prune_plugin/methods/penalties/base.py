"""What a penalty is: how strongly leaving units are pulled towards zero, and in which direction."""

from math import inf

from torch import Tensor

from ...common.validation import check_number


class Penalty:
    """Base of the penalties: each step adds ``strength * direction`` to the gradients of leaving units.

    Args:
        strength: The largest factor, > 0. Times the learning rate it should stay below 1.
    """

    #: Whether :meth:`factors` wants to know the units' norms.
    needs_norms = False

    def __init__(self, strength: float):
        check_number('strength', strength, 0, inf)
        self.strength = float(strength)

    def at(self, step: int, steps: int) -> float:
        """The factor at a step.

        Args:
            step: Optimizer steps of this state that are over.
            steps: Optimizer steps of the state in all.
        """
        raise NotImplementedError

    def factors(self, norms: Tensor | None) -> Tensor | float:
        """What each unit's weights are multiplied by to give their direction.

        Args:
            norms: Euclidean norm of each leaving unit, (units,), if ``needs_norms``.

        Returns:
            (units,), or one number for all.
        """
        return 1.0

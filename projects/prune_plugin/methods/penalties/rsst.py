"""RSST: soft pruning by an L2 penalty that ramps up over the training of a state."""

from collections.abc import Callable
from math import expm1, inf

from ...common.registry import PENALTIES
from ...common.validation import check_number, one_of
from .base import Penalty

#: Functions of progress p in [0, 1] and an exponent that rise from 0 at p = 0 (to 1 at p = 1).
RAMPS: dict[str, Callable[[float, float], float]] = {
    'x': lambda p, k: p,
    'x^2': lambda p, k: p**2,
    'x^3': lambda p, k: p**3,
    'exp': lambda p, k: expm1(5 * p) / expm1(5),
    'exp_custom': lambda p, k: expm1(p) / expm1(1),
    'exp_custom_exponents': lambda p, k: expm1(p**k) / expm1(1),
}


@PENALTIES.register_module()
class RSST(Penalty):
    """Adds ``strength * ramp(p) * w`` to the gradient of every weight w of the units to remove.

    The progress p rises from 0 to 1 over the optimizer steps of a state. So these units shrink while the
    others adapt, and removing them at the end of the state changes little. The penalty alone shrinks a
    weight by about ``exp(-lr * sum of strength * ramp(p))`` over the state: fewer steps need a larger
    strength.

    Args:
        strength: Factor at the end of the state (``--reg_granularity_prune``).
        schedule: ``'x'``, ``'x^2'``, ``'x^3'``, ``'exp'`` ((e^5p - 1) / (e^5 - 1)), ``'exp_custom'``
            ((e^p - 1) / (e - 1)) or ``'exp_custom_exponents'`` ((e^(p^k) - 1) / (e - 1))
            (``--RST_schedule``).
        exponents: k (``--exponents``); ignored by the other schedules.

    Source: the public code of RSST (github.com/zjgxwl/RSST), except that p is the progress of the state,
    where that code counts the batches of an epoch, and that ``'exp'`` is normalised with a rate of 5, as
    e^x is unbounded.

    Example:
        >>> prune_cfg = dict(penalty=dict(type='RSST', schedule='exp_custom_exponents'))
    """

    def __init__(
        self,
        strength: float = 1.0,
        schedule: str = 'exp_custom_exponents',
        exponents: float = 4.0,
    ):
        super().__init__(strength)
        self.ramp = RAMPS[one_of('schedule', schedule, RAMPS)]
        check_number('exponents', exponents, 0, inf)
        self.exponents = float(exponents)

    def at(self, step, steps):
        """See :meth:`Penalty.at`."""
        return self.strength * self.ramp(min((step + 1) / steps, 1.0), self.exponents)

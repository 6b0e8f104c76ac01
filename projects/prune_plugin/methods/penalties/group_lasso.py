"""Group lasso: a pull of the same length on every unit, whatever its size."""

from ...common.registry import PENALTIES
from .base import Penalty


@PENALTIES.register_module()
class GroupLasso(Penalty):
    """Adds ``strength * w / ||unit||`` to the gradients of the leaving units, from the first step on.

    The gradient of the sum of the units' Euclidean norms. Near zero the pull would jump from one side to
    the other: there it is shortened.

    Args:
        strength: Factor.

    Source: Yuan & Lin, "Model selection and estimation in regression with grouped variables", 2006; on
    networks: Wen et al., "Learning Structured Sparsity in Deep Neural Networks", arXiv 1608.03665.

    Example:
        >>> prune_cfg = dict(penalty=dict(type='GroupLasso', strength=0.1))
    """

    needs_norms = True
    #: Norm below which the pull is as of an L2 penalty.
    NEAR = 1e-3

    def __init__(self, strength: float = 0.1):
        super().__init__(strength)

    def at(self, step, steps):
        """See :meth:`Penalty.at`."""
        return self.strength

    def factors(self, norms):
        """See :meth:`Penalty.factors`."""
        return norms.clamp_min(self.NEAR).reciprocal()

"""Group lasso: the gradient of the units' Euclidean norms, of the same length for every unit."""

from ...common.registry import PENALTIES
from .base import Penalty


@PENALTIES.register_module()
class GroupLasso(Penalty):
    """Adds ``strength * w / ||unit||`` to the gradients of the units to remove, from the first step on.

    That is the gradient of the sum of the units' Euclidean norms. Below a norm of 0.001 it is reduced in
    proportion to the norm, so that weights don't oscillate around zero.

    Args:
        strength: Factor on this gradient.

    Source: Yuan & Lin, "Model selection and estimation in regression with grouped variables", 2006; on
    networks: Wen et al., "Learning Structured Sparsity in Deep Neural Networks", arXiv 1608.03665.

    Example:
        >>> prune_cfg = dict(penalty=dict(type='GroupLasso', strength=0.1))
    """

    needs_norms = True
    #: Norm below which the gradient is that of an L2 penalty.
    NEAR = 1e-3

    def __init__(self, strength: float = 0.1):
        super().__init__(strength)

    def at(self, step, steps):
        """See :meth:`Penalty.at`."""
        return self.strength

    def factors(self, norms):
        """See :meth:`Penalty.factors`."""
        return norms.clamp_min(self.NEAR).reciprocal()

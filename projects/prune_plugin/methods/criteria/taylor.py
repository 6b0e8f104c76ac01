"""Taylor expansions of the change of the loss when weights are removed."""

import torch
from torch import Tensor

from ...calibration.statistics import Statistic
from ...common.errors import UserError
from ...common.precision import at_least_float32
from ...common.registry import CRITERIA
from ...structure.unit_group import sum_per_unit
from .base import Criterion


def taylor_elements(weight: Tensor, gradient: Tensor) -> Tensor:
    """First-order change of the loss when each weight is set to zero: ``|w * dL/dw|``, elementwise."""
    return (weight * gradient).abs()


def curvature_elements(weight: Tensor, squared_gradient: Tensor) -> Tensor:
    """Second-order term with the empirical Fisher as diagonal Hessian: ``w^2 * g^2 / 2``, elementwise."""
    return 0.5 * at_least_float32(weight).square() * squared_gradient


@CRITERIA.register_module()
class Taylor(Criterion):
    """Change of the calibration loss when a unit's weights are set to zero, summed over its weights.

    Order 1: ``sum |w * g|`` with ``g`` the mean gradient over the calibration samples. Order 2 adds
    ``sum w^2 * h / 2`` with ``h`` the mean over batches of the squared gradient.

    Args:
        order: 1 or 2.
        normalize: See :class:`Criterion`.

    Source: Molchanov et al., "Importance Estimation for Neural Network Pruning", arXiv 1906.10771;
    element-wise sums as in Ma et al., "LLM-Pruner", arXiv 2305.11627.

    Example:
        >>> prune_cfg = dict(criterion=dict(type='Taylor', order=1), calibration=dict(num_samples=128))
    """

    def __init__(self, order: int = 1, normalize: str = 'none'):
        super().__init__(normalize)
        if order not in (1, 2):
            raise UserError(f'order is {order!r}; valid are 1, 2')
        self.order = order
        extra = (Statistic.SQUARED_GRADIENTS,) if order == 2 else ()
        self.statistics = frozenset((Statistic.GRADIENTS, *extra))

    def score(self, group, tensors, statistics):
        """See :meth:`Criterion.score`."""
        total = torch.zeros(group.size, dtype=torch.float64)
        for cut in group.cuts:
            gradient = statistics.gradients.get(cut.name)
            if gradient is None:  # a buffer, or the second name of a tied parameter
                continue
            weight = tensors[cut.name]
            elements = taylor_elements(weight, gradient)
            if self.order == 2:
                elements = elements + curvature_elements(
                    weight, statistics.squared_gradients[cut.name]
                )
            total = total + sum_per_unit(elements, cut, group.size).to(total)
        return total

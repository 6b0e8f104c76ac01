"""How much each unit was used, where a module can tell."""

from ...calibration.statistics import Statistic
from ...common.errors import UserError
from ...common.registry import CRITERIA
from .base import Criterion


@CRITERIA.register_module()
class Usage(Criterion):
    """How much a unit was used on the calibration batches, as the module that owns it says.

    For units whose weights say little, such as a decoder's queries. A module tells through a method
    ``unit_usage(output)`` that returns, from its forward pass's output, one tensor ``(size,)`` per
    kind of unit, summed over the batch; VAD's head counts a query's highest class score.

    Args:
        normalize: See :class:`Criterion`.

    Example:
        >>> prune_cfg = dict(units=[dict(type='ObjectQueries')], criterion=dict(type='Usage'),
        ...     budget=dict(type='units', ratio=0.5))
    """

    statistics = frozenset((Statistic.USAGE,))

    def score(self, group, tensors, statistics):
        """See :meth:`Criterion.score`."""
        if group.name not in statistics.usage:
            raise UserError(
                f'prune_cfg.criterion: Usage cannot score {group.name}: its module does not tell how '
                f'a {group.kind} is used; use another criterion, or ByKind'
            )
        return statistics.usage[group.name]

"""Usage of units, as reported by their modules."""

from ...calibration.statistics import Statistic
from ...common.errors import UserError
from ...common.registry import CRITERIA
from .base import Criterion, expert_outputs


@CRITERIA.register_module()
class Usage(Criterion):
    """How much a unit was used on the calibration batches, as reported by the module that owns it.

    For units whose weights are not informative, such as a decoder's queries. The module needs a method
    ``unit_usage(output)`` that returns, from the output of its forward pass, a dict with one tensor
    ``(size,)`` per kind of unit, summed over the batch. VAD's head reports the highest class score of each
    query. Experts of a mixture need no such method: their usage is the mean norm of what they add to the
    tokens that are routed to them, the router's weight times the expert's output.

    Args:
        normalize: See :class:`Criterion`.

    Example:
        >>> prune_cfg = dict(units=[dict(type='ObjectQueries')], criterion=dict(type='Usage'),
        ...     budget=dict(type='units', ratio=0.5))
    """

    statistics = frozenset((Statistic.USAGE,))

    def score(self, group, tensors, statistics):
        """See :meth:`Criterion.score`."""
        if group.kind == 'expert':
            return expert_outputs(self, group, statistics)
        if group.name not in statistics.usage:
            raise UserError(
                f'prune_cfg.criterion: Usage cannot score {group.name}: its module does not report how '
                f'its {group.kind} units are used; use another criterion, or ByKind'
            )
        return statistics.usage[group.name]

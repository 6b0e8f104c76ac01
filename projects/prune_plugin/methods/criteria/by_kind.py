"""Another criterion for some kinds of units, in one table with the rest."""

from collections.abc import Mapping
from operator import eq

from ...common.errors import UserError
from ...common.patterns import check_matches
from ...common.registry import CRITERIA, build
from .base import Criterion


@CRITERIA.register_module()
class ByKind(Criterion):
    """One criterion for all units, and others for some kinds.

    Scores of two criteria can't be compared. So a kind's own criterion only says how a group's
    importance is shared out among its units; the sum is what the default criterion gives the group.

    Args:
        default: The criterion for everything, also for the sums.
        kinds: Criteria by kind of unit, as in the reports (``object_query``).
        normalize: See :class:`Criterion`.

    Raises:
        UserError: a kind that no unit group has.

    Example:
        >>> prune_cfg = dict(criterion=dict(type='ByKind', default=dict(type='Taylor'),
        ...     kinds=dict(object_query=dict(type='Usage'))))
    """

    def __init__(self, default: Mapping, kinds: Mapping[str, Mapping], normalize: str = 'none'):
        super().__init__(normalize)
        if not isinstance(kinds, Mapping):
            raise UserError(f'prune_cfg.criterion.kinds is {kinds!r}; it must be a dict')
        self.default = build(CRITERIA, default, 'prune_cfg.criterion.default')
        self.kinds = {
            kind: build(CRITERIA, cfg, f'prune_cfg.criterion.kinds.{kind}')
            for kind, cfg in kinds.items()
        }
        parts = (self.default, *self.kinds.values())
        self.reads_ratio = any(part.reads_ratio for part in parts)
        self.statistics = frozenset().union(*(part.statistics for part in parts))

    def check(self, groups):
        """See :meth:`Criterion.check`."""
        present = [group.kind for group in groups]
        check_matches('prune_cfg.criterion.kinds', self.kinds, present, 'kinds of units', eq)
        self.default.check(groups)
        for kind, criterion in self.kinds.items():
            criterion.check([group for group in groups if group.kind == kind])

    def raw_scores(self, groups, tensors, statistics, ratio):
        """See :meth:`Criterion.raw_scores`."""
        scores = self.default.scores(groups, tensors, statistics, ratio)
        for kind, criterion in self.kinds.items():
            members = [number for number, group in enumerate(groups) if group.kind == kind]
            if criterion.reads_ratio:  # it ranks over all groups
                everything = criterion.scores(groups, tensors, statistics, ratio)
                of_kind = [everything[number] for number in members]
            else:
                own = [groups[number] for number in members]
                of_kind = criterion.scores(own, tensors, statistics, ratio)
            for number, shares in zip(members, of_kind, strict=True):
                if shares.sum() > 0:
                    scores[number] = shares * (scores[number].sum() / shares.sum())
        return scores

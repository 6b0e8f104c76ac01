"""Which units are kept, from one round of iterative pruning to the next."""

import torch
from torch import Tensor

from ...calibration.loss import mmengine_loss
from ...common.distributed import assert_ranks_agree, on_rank_0
from ...common.errors import UserError
from ...structure.prune_state import PruneState
from ...structure.slimming import slim
from .plan import Pruned
from .reconstructing import unit_masks
from .selection import Selection

#: Kept indices by unit group.
Units = dict[str, Tensor]


class UnitSelection(Selection):
    """Units: ``kept`` are active, those of them that aren't in ``target`` are scheduled for removal.

    Args:
        pruner: A StructuredPruner, which scores and allocates; with a penalty, units are removed softly.
        model: The dense model.

    Raises:
        UserError: units that no mask can take out of a training model (tokens, whole layers).
    """

    def __init__(self, pruner, model):
        if pruner.rescoring is not None:
            raise UserError(
                'prune_cfg.rescoring and prune_cfg.budget.ratios prune without training, and an '
                'IterativePruneLoop trains; leave one out'
            )
        self.pruner, self.groups = pruner, pruner.discover(model)[0]
        for group in self.groups:
            if any(cut.dim is None or cut.side == 'flag' for cut in group.cuts):
                raise UserError(
                    f'prune_cfg.units: units of {group.name} ({group.kind}) cannot be masked while '
                    'training; leave that kind out, or name its groups in prune_cfg.exclude'
                )
        self.kept: Units = {group.name: torch.arange(group.size) for group in self.groups}
        self.target = dict(self.kept)

    def planned(self, model, ratio):
        """See :meth:`Selection.planned`."""
        if self.pruner.allocator.depends_on_weights:
            return None
        even = [torch.ones(group.size, dtype=torch.float64) for group in self.groups]
        return sum(map(len, self.pruner.at(ratio).allocate(model, self.groups, even)))

    def choose(self, model, ratio, data, loss=mmengine_loss, progress=None):
        """See :meth:`Selection.choose`."""
        pruner = self.pruner.at(ratio)
        scores = pruner.scores(model, self.groups, data, loss)
        ranked = removed_first(scores, [self.state().removed(g.name) for g in self.groups])
        units = on_rank_0(lambda: pruner.allocate(model, self.groups, ranked))
        self.target = {
            group.name: chosen[torch.isin(chosen, self.kept[group.name])]
            for group, chosen in zip(self.groups, units, strict=True)
        }
        assert_ranks_agree(self.state(self.target).digest(), 'the units kept')
        if self.pruner.penalty is None:
            self.remove()

    def remove(self):
        """See :meth:`Selection.remove`."""
        self.kept = dict(self.target)

    def state(self, kept: Units | None = None) -> PruneState:
        """The prune state of the active units, or of others, relative to the model as given."""
        units = dict(self.kept if kept is None else kept)
        return PruneState({group.name: group for group in self.groups}, units, self.pruner.asked)

    def scheduled(self):
        """See :meth:`Selection.scheduled`."""
        units = {n: kept[~torch.isin(kept, self.target[n])] for n, kept in self.kept.items()}
        return [
            [(c.name, c.dim, c.indices(g.size)[units[g.name]]) for c in g.cuts]
            for g in self.groups
            if len(units[g.name])
        ]

    def masks(self, model):
        """See :meth:`Selection.masks`."""
        return unit_masks(model, self.state())

    def counts(self):
        """See :meth:`Selection.counts`."""
        return {g.name: [g.kind, len(self.kept[g.name]), g.size] for g in self.groups}

    def pruned(self, model):
        """See :meth:`Selection.pruned`."""
        state = self.state()
        return Pruned(slim(model, state), state)

    def to_dict(self):
        """See :meth:`Selection.to_dict`."""
        both = {'kept': self.kept, 'target': self.target}
        return {key: {n: u.tolist() for n, u in units.items()} for key, units in both.items()}

    def restore(self, data):
        """See :meth:`Selection.restore`."""
        sizes = {group.name: group.size for group in self.groups}
        for key in ('kept', 'target'):
            saved = data.get(key)
            ours = isinstance(saved, dict) and saved.keys() == sizes.keys()
            if not ours or any(max(u, default=0) >= sizes[n] for n, u in saved.items()):
                raise UserError(
                    'the checkpoint to resume from has other units than the model: take the config '
                    'that it was trained with'
                )
            setattr(self, key, {n: torch.tensor(u, dtype=torch.long) for n, u in saved.items()})


def removed_first(scores: list[Tensor], removed: list[Tensor]) -> list[Tensor]:
    """Scores in which units that were removed rank below all others, so that they are removed again.

    Args:
        scores: One vector per group.
        removed: Indices of the units removed, per group.
    """
    lowest = min((float(score.min()) for score in scores if len(score)), default=0.0)
    below = min(lowest, 0.0) - 1.0
    return [score.index_fill(0, units, below) for score, units in zip(scores, removed, strict=True)]

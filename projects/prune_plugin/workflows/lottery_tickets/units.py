"""Tickets of whole units: heads, neurons, channels."""

import torch

from ...common.distributed import assert_ranks_agree, on_rank_0
from ...common.errors import UserError
from ...common.model_interface import prune_state_on
from ...structure.prune_state import PruneState, compose
from ...structure.slimming import slim
from .base import Ticket


class UnitTicket(Ticket):
    """Which units are in force, and which of them are to leave.

    Raises:
        UserError: units that no mask can take out of a training model (tokens, whole layers).
    """

    def __init__(self, pruner, model, soft):
        super().__init__(pruner, model, soft)
        self.groups = pruner.discover(model)[0]
        for group in self.groups:
            if any(cut.dim is None or cut.side == 'flag' for cut in group.cuts):
                raise UserError(
                    f'prune_cfg.units: units of {group.name} ({group.kind}) cannot be masked while '
                    'training; leave that kind out'
                )
        self.prior_state: PruneState | None = prune_state_on(model)
        self.alive = {group.name: torch.arange(group.size) for group in self.groups}
        self.chosen = dict(self.alive)

    def planned(self, model, ratio):
        """See :meth:`Ticket.planned`."""
        if self.pruner.allocator.depends_on_weights:
            return None
        even = [torch.ones(group.size, dtype=torch.float64) for group in self.groups]
        return sum(len(kept) for kept in self.at(ratio).allocate(model, self.groups, even))

    def at(self, ratio):
        """The pruner with a round's ratio."""
        return self.pruner.at(ratio * (1 - self.pruner.fillback_rate))

    def choose(self, model, ratio, data, loss):
        """See :meth:`Ticket.choose`. With a ``fillback_rate`` that share of what would go stays."""
        pruner = self.at(ratio)
        scores = pruner.scores(model, self.groups, data, loss)
        for group, score in zip(self.groups, scores, strict=True):
            gone = torch.ones(group.size, dtype=torch.bool)
            gone[self.alive[group.name]] = False
            score[gone] = -1.0  # below all that is alive, so they go first again
        kept = on_rank_0(lambda: pruner.allocate(model, self.groups, scores))
        self.chosen = {
            group.name: units[torch.isin(units, self.alive[group.name])]
            for group, units in zip(self.groups, kept, strict=True)
        }
        assert_ranks_agree(self.state(self.chosen).digest(), 'the units kept')
        if not self.soft:
            self.remove()

    def remove(self):
        """See :meth:`Ticket.remove`."""
        self.alive = dict(self.chosen)

    def state(self, kept=None):
        """The prune state of what is in force, relative to the model as given."""
        return PruneState(
            {group.name: group for group in self.groups},
            dict(self.alive if kept is None else kept),
            self.pruner.asked,
        )

    def leaving(self):
        """For each group the units that are still in force, but chosen to leave."""
        found = {}
        for name, units in self.alive.items():
            goes = units[~torch.isin(units, self.chosen[name])]
            if len(goes):
                found[name] = goes
        return found

    def masks(self, model):
        """See :meth:`Ticket.masks`."""
        parameters = dict(model.named_parameters())
        masks = {}
        state = self.state()
        for group in state.reduced:
            gone = state.removed(group.name)
            for cut in group.cuts:
                if cut.name not in parameters:
                    continue
                keep = masks.setdefault(
                    cut.name, torch.ones(parameters[cut.name].shape, dtype=torch.bool)
                )
                keep.index_fill_(cut.dim, cut.indices(group.size)[gone].flatten(), False)
        return masks

    def kept(self):
        """See :meth:`Ticket.kept`."""
        totals = {}
        for group in self.groups:
            left, size = totals.get(group.kind, (0, 0))
            totals[group.kind] = left + len(self.alive[group.name]), size + group.size
        return totals

    def to_dict(self):
        """See :meth:`Ticket.to_dict`."""
        return {
            which: {name: units.tolist() for name, units in units_of.items()}
            for which, units_of in (('alive', self.alive), ('chosen', self.chosen))
        }

    def restore(self, data):
        """See :meth:`Ticket.restore`."""
        sizes = {group.name: group.size for group in self.groups}
        for which in ('alive', 'chosen'):
            found = data.get(which)
            if not isinstance(found, dict) or found.keys() != sizes.keys():
                raise UserError(
                    'the checkpoint to resume from has other units than the model: take the config '
                    'that it was trained with'
                )
            setattr(
                self, which, {name: torch.tensor(u, dtype=torch.long) for name, u in found.items()}
            )

    def cut(self, model):
        """See :meth:`Ticket.cut`."""
        return slim(model, self.state())

    def describe(self):
        """See :meth:`Ticket.describe`."""
        return {'meta': {'prune_state': compose(self.prior_state, self.state()).to_dict()}}

    def by_group(self):
        """See :meth:`Ticket.by_group`."""
        return {g.name: [g.kind, len(self.alive[g.name]), g.size] for g in self.groups}

    def pulled(self):
        """See :meth:`Ticket.pulled`."""
        leaving = self.leaving()
        return [
            [
                (cut.name, cut.dim, cut.indices(group.size)[leaving[group.name]])
                for cut in group.cuts
            ]
            for group in self.groups
            if group.name in leaving
        ]

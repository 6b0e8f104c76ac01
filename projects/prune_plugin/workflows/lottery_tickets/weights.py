"""Tickets of single weights."""

import torch

from ...common.errors import UserError
from ...training.hooks.mask_hook import pack_masks, unpack_masks
from .base import Ticket


class WeightTicket(Ticket):
    """Which weights are in force."""

    def __init__(self, pruner, model, soft):
        super().__init__(pruner, model, soft)
        self.names = list(pruner.chosen(model))
        shapes = {name: model.get_parameter(name).shape for name in self.names}
        self.alive = {name: torch.ones(shapes[name], dtype=torch.bool) for name in self.names}

    def choose(self, model, ratio, data, loss):
        """See :meth:`Ticket.choose`."""
        before = self.alive if any(not keep.all() for keep in self.alive.values()) else None
        masks = self.pruner.sparsify(model, data, loss, ratio=ratio, before=before)
        self.alive = {name: keep.cpu() for name, keep in masks.items()}

    def masks(self, model):
        """See :meth:`Ticket.masks`."""
        return {name: keep for name, keep in self.alive.items() if not keep.all()}

    def kept(self):
        """See :meth:`Ticket.kept`."""
        left = sum(int(keep.sum()) for keep in self.alive.values())
        return {'weights': (left, sum(keep.numel() for keep in self.alive.values()))}

    def to_dict(self):
        """See :meth:`Ticket.to_dict`."""
        return {'alive': pack_masks(self.alive)}

    def restore(self, data):
        """See :meth:`Ticket.restore`."""
        masks = unpack_masks(data.get('alive') or {})
        ours = {name: keep.shape for name, keep in self.alive.items()}
        if {name: keep.shape for name, keep in masks.items()} != ours:
            raise UserError(
                'the checkpoint to resume from has masks of other weights than the model: take the '
                'config that it was trained with'
            )
        self.alive = masks

    def describe(self):
        """See :meth:`Ticket.describe`."""
        return {'masks': pack_masks(self.alive)}

    def by_group(self):
        """See :meth:`Ticket.by_group`."""
        return {
            name: ['weights', int(keep.sum()), keep.numel()] for name, keep in self.alive.items()
        }

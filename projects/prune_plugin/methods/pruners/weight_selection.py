"""Which single weights are kept, from one round of iterative pruning to the next."""

import torch

from ...calibration.loss import mmengine_loss
from ...checkpoints.packed_masks import pack_masks, unpack_masks
from ...common.errors import UserError
from .plan import Pruned
from .selection import Selection


class WeightSelection(Selection):
    """Single weights: those that a mask keeps are active.

    Args:
        pruner: A WeightPruner, which sets weights to zero.
        model: The dense model.
    """

    def __init__(self, pruner, model):
        self.pruner = pruner
        weights = pruner.chosen(model)
        self.kept = {n: torch.ones(w.shape, dtype=torch.bool) for n, w in weights.items()}

    def choose(self, model, ratio, data, loss=mmengine_loss, progress=None):
        """See :meth:`Selection.choose`."""
        previous = self.kept if any(not mask.all() for mask in self.kept.values()) else None
        masks = self.pruner.sparsify(
            model, data, loss, ratio=ratio, progress=progress, previous=previous
        )
        self.kept = {name: mask.cpu() for name, mask in masks.items()}

    def masks(self, model):
        """See :meth:`Selection.masks`."""
        return {name: mask for name, mask in self.kept.items() if not mask.all()}

    def counts(self):
        """See :meth:`Selection.counts`."""
        return {n: ['weights', int(mask.sum()), mask.numel()] for n, mask in self.kept.items()}

    def pruned(self, model):
        """See :meth:`Selection.pruned`."""
        return Pruned(model, masks=self.kept)

    def to_dict(self):
        """See :meth:`Selection.to_dict`."""
        return {'kept': pack_masks(self.kept)}

    def restore(self, data):
        """See :meth:`Selection.restore`."""
        masks = unpack_masks(data.get('kept') or {})
        ours = {name: mask.shape for name, mask in self.kept.items()}
        if {name: mask.shape for name, mask in masks.items()} != ours:
            raise UserError(
                'the checkpoint to resume from has masks of other weights than the model: take the '
                'config that it was trained with'
            )
        self.kept = masks

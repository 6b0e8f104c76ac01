"""Squared derivative of the loss by a gate on each unit."""

from ...calibration.mask_gradients import has_mask_gradient
from ...calibration.statistics import Statistic
from ...common.errors import UserError
from ...common.registry import CRITERIA
from .base import Criterion


@CRITERIA.register_module()
class Fisher(Criterion):
    """Mean over batches of the squared derivative of the loss by a factor on the unit's output.

    The diagonal Fisher information of the mask: twice what the loss gains, to second order, when the
    unit goes and the model was at a minimum. Unlike Taylor's sums over weights it lets a unit's
    contributions to one sample cancel. It reads no gradients of weights: beside the model and its
    activations it holds one number per unit. With ``calibration=dict(batch_size=1)`` a batch is a
    sample, as the theory wants.

    Whole layers (``PreNormLayers``) are scored too, by a factor on what the layer adds.

    Args:
        normalize: See :class:`Criterion`.

    Source: Kwon et al., "A Fast Post-Training Pruning Framework for Transformers", arXiv 2204.09656;
    Theis et al., "Faster gaze prediction with dense networks and Fisher pruning", arXiv 1801.05787.

    Example:
        >>> prune_cfg = dict(criterion=dict(type='Fisher'), calibration=dict(batch_size=1))
    """

    statistics = frozenset((Statistic.FISHER,))

    def check(self, groups):
        """See :meth:`Criterion.check`."""
        for group in groups:
            if not has_mask_gradient(group):
                raise UserError(
                    f'prune_cfg.criterion: Fisher cannot score {group.name}: nothing reads a '
                    f'{group.kind} as input; use another criterion, other units, or ByKind'
                )

    def score(self, group, tensors, statistics):
        """See :meth:`Criterion.score`."""
        return statistics.fisher[group.name]

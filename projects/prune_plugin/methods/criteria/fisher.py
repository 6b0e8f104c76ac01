"""Fisher information of unit masks: squared gradients of the loss."""

from ...calibration.mask_gradients import has_mask_gradient
from ...calibration.statistics import Statistic
from ...common.errors import UserError
from ...common.registry import CRITERIA
from .base import Criterion


@CRITERIA.register_module()
class Fisher(Criterion):
    """Mean over batches of the squared gradient of the loss with respect to a mask on the unit's output.

    The diagonal of the masks' empirical Fisher information: to second order, and at a minimum of the
    loss, twice the increase of the loss when the unit is removed. Unlike in Taylor's sums over weights, a
    unit's contributions to one sample can cancel. No gradients of weights are needed: beside the model and
    its activations, memory holds one number per unit. The theory takes samples as batches:
    ``calibration=dict(batch_size=1)``.

    Whole layers (``PreNormLayers``) are scored by a mask on what the layer adds to the residual stream.

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

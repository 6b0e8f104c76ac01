"""Optimal brain surgeon scores of units: the error that is left once the other units are refitted."""

import math

import torch

from ...calibration.mask_gradients import input_cuts
from ...calibration.statistics import Statistic
from ...common.errors import UserError
from ...common.registry import CRITERIA
from ...common.validation import at_least, check_number
from ..optimal_brain_surgeon import removal_costs
from .base import Criterion


@CRITERIA.register_module()
class OptimalBrainSurgeon(Criterion):
    """What removing a unit costs if the units that stay are refitted, in the order of a greedy removal.

    The cost is the squared error of what the layers that read the unit compute, each output weighed by the
    squared gradient of the loss there, which makes it an estimate of the loss's increase. Unlike other
    scores it knows what the compensation will make up for, and that of two units which do the same, one can
    go: a unit's score is its cost when those before it in its group are gone. Meant for
    ``compensation=dict(type='LeastSquares')``.

    Only for units that linear layers and ungrouped 2-D convolutions read, and nothing else. Takes one pass
    over the calibration data, and one with gradients; memory for one matrix per layer
    (``calibration.gradient_memory`` limits it); time of the cube of a layer's inputs.

    Args:
        normalize: See :class:`Criterion`.
        damping: Fraction of the mean diagonal of a layer's Gram matrix that is added to its diagonal.
        gradients: Whether outputs are weighed by the loss's gradient there; else all count the same, and
            scores of different layers can't be compared.
        at_once: Inputs of a layer that are removed before costs are computed anew.

    Raises:
        UserError: units that something else reads; see :func:`.removal_costs` too.

    Source: Hassibi & Stork 1993; for units of language models Ling et al., "SlimGPT", arXiv 2412.18110, and
    Meng et al., "OSSCAR", arXiv 2403.12983. The weights of the outputs and the use across layers are ours.

    Example:
        >>> prune_cfg = dict(
        ...     criterion=dict(type='OptimalBrainSurgeon'), compensation=dict(type='LeastSquares'))
    """

    statistics = frozenset((Statistic.GRAMS, Statistic.OUTPUT_GRADIENTS))

    def __init__(
        self,
        normalize: str = 'none',
        damping: float = 0.01,
        gradients: bool = True,
        at_once: int = 16,
    ):
        super().__init__(normalize)
        check_number('damping', damping, 0, math.inf)
        if not isinstance(gradients, bool):
            raise UserError(f'gradients is {gradients!r}; it must be True or False')
        at_least('at_once', at_once, 1)
        self.damping, self.gradients, self.at_once = float(damping), gradients, at_once
        if not gradients:
            self.statistics = frozenset((Statistic.GRAMS,))

    def check(self, groups):
        """See :meth:`Criterion.check`."""
        for group in groups:
            cuts = input_cuts(group)
            tokens = group.repeated or any(cut.side == 'flag' for cut in group.cuts)
            norms = any(converter == 'SlimLayerNorm' for _, converter in group.converts)
            if tokens or norms or group.kind == 'expert' or not cuts:
                raise self.refusal(group, f'a {group.kind} is not read by linear layers alone')

    def refusal(self, group, why: str) -> UserError:
        """What is said of units that it isn't for."""
        return UserError(
            f'prune_cfg.criterion: OptimalBrainSurgeon cannot score {group.name}: {why}; use another '
            'criterion, other units, or ByKind'
        )

    def score(self, group, tensors, statistics):
        """See :meth:`Criterion.score`."""
        readers = []
        for cut in input_cuts(group):
            if cut.name not in statistics.grams:
                raise self.refusal(
                    group, f'{cut.name} is of no linear layer and no ungrouped 2-D convolution'
                )
            weight, gram = tensors[cut.name], statistics.grams[cut.name]
            rows = statistics.gram_rows[cut.name].clamp_min(1)
            if f'{cut.name.removesuffix("weight")}bias' in tensors:  # makes up for the mean
                mean = statistics.gram_sums[cut.name] / rows
                gram = gram - torch.outer(mean, mean)
            matrix = weight.detach().double().flatten(1)
            if self.gradients:
                matrix = matrix * statistics.output_gradients[cut.name][:, None]
            taps = torch.arange(weight.shape[2:].numel())
            columns = cut.indices(group.size).view(group.size, -1, 1) * len(taps) + taps
            per_sample = (rows / max(statistics.samples, 1)).sqrt()
            readers.append((matrix * per_sample, gram, columns.flatten(1)))
        return removal_costs(readers, self.damping, self.at_once, group.name)

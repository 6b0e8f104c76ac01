"""Random scores, a baseline."""

import zlib

import torch

from ...common.registry import CRITERIA
from ...common.validation import at_least
from ...structure.unit_group import weight_cuts
from .base import Criterion


@CRITERIA.register_module()
class Random(Criterion):
    """Random scores, reproducible by seed and group name. Needs no data.

    The score is a uniform random number in [0, 1) times the number of the unit's weights, as if L1 scored
    weights that all have one random magnitude. So units of any size are equally likely to be removed when
    ranked by score per cost.

    Args:
        seed: Seed.
        normalize: See :class:`Criterion`.

    Example:
        >>> prune_cfg = dict(criterion=dict(type='Random', seed=0))
    """

    def __init__(self, seed: int = 0, normalize: str = 'none'):
        super().__init__(normalize)
        at_least('prune_cfg.criterion.seed', seed, 0)
        self.seed = seed

    def score(self, group, tensors, statistics):
        """See :meth:`Criterion.score`."""
        generator = torch.Generator().manual_seed(self.seed + zlib.crc32(group.name.encode()))
        weights_per_unit = 0.0
        for cut in weight_cuts(group, tensors, 'both'):
            weight = tensors[cut.name]
            share = 1.0 if cut.dim is None else cut.per_unit / weight.shape[cut.dim]
            weights_per_unit += weight.numel() * share
        return weights_per_unit * torch.rand(group.size, generator=generator, dtype=torch.float64)

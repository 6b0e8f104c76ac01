"""The baseline that every criterion must beat."""

import zlib

import torch

from ...common.registry import CRITERIA
from ...common.validation import at_least
from ...structure.unit_group import weight_cuts
from .base import Criterion


@CRITERIA.register_module()
class Random(Criterion):
    """Random scores, the same for the same seed and group name. Needs no data.

    A uniform number in [0, 1) for each unit, times the number of weights that the unit holds: as L1
    would score it if its weights were all of one random size. Per cost, every unit then has the
    same chance, however large it is.

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
        held = 0.0
        for cut in weight_cuts(group, tensors, 'both'):
            weight = tensors[cut.name]
            share = 1.0 if cut.dim is None else cut.per_unit / weight.shape[cut.dim]
            held += weight.numel() * share
        return held * torch.rand(group.size, generator=generator, dtype=torch.float64)

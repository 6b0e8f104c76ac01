"""The baseline that every criterion must beat."""

import zlib

import torch

from ..registry import CRITERIA
from .base import Criterion


@CRITERIA.register_module()
class Random(Criterion):
    """Uniform random scores in [0, 1), the same for the same seed and group name. Needs no data.

    Args:
        seed: Seed.
        normalize: See :class:`Criterion`.

    Example:
        >>> prune_cfg = dict(criterion=dict(type='Random', seed=0))
    """

    def __init__(self, seed: int = 0, normalize: str = 'none'):
        super().__init__(normalize)
        self.seed = seed

    def score(self, group, tensors, statistics):
        """See :meth:`Criterion.score`."""
        generator = torch.Generator().manual_seed(self.seed + zlib.crc32(group.name.encode()))
        return torch.rand(group.size, generator=generator, dtype=torch.float64)

"""Heads that only help training: their weights are not part of a finished model."""

from .bev_segmentation import BEVSegmentation
from .query_groups import QueryGroups

__all__ = ['BEVSegmentation', 'QueryGroups']

"""Which query answers for which true agent or map element."""

from .hungarian import Matches, match_all
from .hungarian_3d import HungarianAssigner3D
from .map_hungarian_3d import MapHungarianAssigner3D, with_orders
from .match_costs import BBox3DL1Cost, OrderedPtsL1Cost

__all__ = [
    'BBox3DL1Cost',
    'HungarianAssigner3D',
    'MapHungarianAssigner3D',
    'Matches',
    'OrderedPtsL1Cost',
    'match_all',
    'with_orders',
]

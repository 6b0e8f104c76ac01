"""Map elements round the car as lines in the LiDAR frame, and as what the network is taught."""

from .extract import MAP_CLASSES, MapLayers, extract
from .provider import MapProvider
from .sampling import bounds, fixed_points
from .shifts import SHIFT_PATTERNS
from .targets import build_map_targets

__all__ = [
    'MAP_CLASSES',
    'SHIFT_PATTERNS',
    'MapLayers',
    'MapProvider',
    'bounds',
    'build_map_targets',
    'extract',
    'fixed_points',
]

"""How VAD writes boxes and samples."""

from .boxes import (
    corners,
    from_lidar_boxes,
    gravity_center,
    heading,
    to_lidar_boxes,
    with_bottom_center,
    with_gravity_center,
)

__all__ = [
    'corners',
    'from_lidar_boxes',
    'gravity_center',
    'heading',
    'to_lidar_boxes',
    'with_bottom_center',
    'with_gravity_center',
]

"""VAD's four metrics: detection, map, motion and planning."""

from .detection_metric import VADDetectionMetric
from .map_metric import VADMapMetric
from .motion_metric import VADMotionMetric
from .planning_metric import VADPlanningMetric

__all__ = ['VADDetectionMetric', 'VADMapMetric', 'VADMotionMetric', 'VADPlanningMetric']

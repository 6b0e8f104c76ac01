"""The losses of VAD: detection, motion, map and planning."""

from .detection import DetectionLoss
from .map import MapLoss
from .plan_bound import PlanMapBoundLoss
from .plan_collision import PlanCollisionLoss
from .plan_direction import PlanMapDirectionLoss
from .planning import PlanningLoss
from .points import PtsDirCosLoss, PtsL1Loss
from .vad_loss import VADLoss

__all__ = [
    'DetectionLoss',
    'MapLoss',
    'PlanCollisionLoss',
    'PlanMapBoundLoss',
    'PlanMapDirectionLoss',
    'PlanningLoss',
    'PtsDirCosLoss',
    'PtsL1Loss',
    'VADLoss',
]

"""nuScenes for VAD: data set, transforms, samplers. The converters are imported where needed."""

from . import transforms
from .nuscenes_dataset import VADNuScenesDataset
from .samplers import SceneSampler

__all__ = ['SceneSampler', 'VADNuScenesDataset', 'transforms']

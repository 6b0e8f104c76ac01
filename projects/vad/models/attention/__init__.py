"""VAD's attention modules; their inner width is independent of the embedding width."""

from .deformable import CustomMSDeformableAttention, DeformableAttention
from .multihead import HeadAttention, MultiheadAttention
from .spatial import MSDeformableAttention3D, SpatialCrossAttention
from .temporal import TemporalSelfAttention

__all__ = [
    'CustomMSDeformableAttention',
    'DeformableAttention',
    'HeadAttention',
    'MSDeformableAttention3D',
    'MultiheadAttention',
    'SpatialCrossAttention',
    'TemporalSelfAttention',
]

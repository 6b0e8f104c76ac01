"""The VAD network."""

from . import assigners, coders, losses
from .attention import (
    CustomMSDeformableAttention,
    MSDeformableAttention3D,
    SpatialCrossAttention,
    TemporalSelfAttention,
)
from .auxiliary import BEVSegmentation, QueryGroups
from .data_preprocessor import VADDataPreprocessor
from .decoder import (
    CustomTransformerDecoder,
    DetectionTransformerDecoder,
    MapDetectionTransformerDecoder,
    VADDecoderLayer,
)
from .detector import VAD
from .encoder import BEVFormerEncoder, BEVFormerLayer
from .head import VADHead
from .transformer import VADPerceptionTransformer

__all__ = [
    'VAD',
    'BEVFormerEncoder',
    'BEVFormerLayer',
    'BEVSegmentation',
    'CustomMSDeformableAttention',
    'CustomTransformerDecoder',
    'DetectionTransformerDecoder',
    'MSDeformableAttention3D',
    'MapDetectionTransformerDecoder',
    'QueryGroups',
    'SpatialCrossAttention',
    'TemporalSelfAttention',
    'VADDataPreprocessor',
    'VADDecoderLayer',
    'VADHead',
    'VADPerceptionTransformer',
    'assigners',
    'coders',
    'losses',
]

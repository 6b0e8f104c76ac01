"""From the head's output to boxes and lines in metres."""

from .map_nms_free_coder import MapNMSFreeCoder
from .nms_free_coder import CustomNMSFreeCoder

__all__ = ['CustomNMSFreeCoder', 'MapNMSFreeCoder']

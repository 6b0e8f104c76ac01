"""VAD for other programs: one frame in; what is seen and planned, and the BEV to go on with, out."""

from .frame_graph import FrameGraph

__all__ = ['FrameGraph']

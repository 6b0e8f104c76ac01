"""Pictures of what VAD sees: cameras, the view from above, videos. Imported where needed."""

from .content import Content, Line, Objects, content_of
from .frame import draw_frame

__all__ = ['Content', 'Line', 'Objects', 'content_of', 'draw_frame']

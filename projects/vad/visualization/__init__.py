"""Pictures of what VAD sees, knows and plans. Needs matplotlib (``pip install -e ".[plots]"``)."""

from .drive import build_dataset, chosen, drive_views, scene_frames, single_view
from .frame import draw_frame, write_png
from .side_by_side import draw_side_by_side
from .video import whole_video
from .view import Lines, Objects, View, view_of
from .write import write_pictures

__all__ = [
    'Lines',
    'Objects',
    'View',
    'build_dataset',
    'chosen',
    'draw_frame',
    'draw_side_by_side',
    'drive_views',
    'scene_frames',
    'single_view',
    'view_of',
    'whole_video',
    'write_pictures',
    'write_png',
]

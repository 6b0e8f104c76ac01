"""Colours: told apart by people who see few of them, on photographs and on white paper."""

OBJECTS = {
    'car': '#0072B2',
    'truck': '#332288',
    'construction_vehicle': '#999933',
    'bus': '#56B4E9',
    'trailer': '#117733',
    'barrier': '#7F7F7F',
    'motorcycle': '#882255',
    'bicycle': '#AA4499',
    'pedestrian': '#D55E00',
    'traffic_cone': '#E69F00',
}
LINES = {'divider': '#009E73', 'ped_crossing': '#CC79A7', 'boundary': '#4D4D4D'}
#: The same on photographs, where dark grey is the colour of the road.
LINES_ON_ROAD = {**LINES, 'divider': '#00D69C', 'boundary': '#F2F2F2'}
OTHER = '#000000'
PLAN = '#DC267F'
TRUE_PLAN = '#111111'
EGO = '#2F3B4C'


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green and blue in [0, 255] of ``'#RRGGBB'``."""
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))

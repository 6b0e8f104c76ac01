"""Colours that are told apart with any kind of colour vision, after Okabe & Ito and Paul Tol."""

CLASS_COLORS = {
    'car': '#0072b2',
    'truck': '#56b4e9',
    'construction_vehicle': '#b8a200',
    'bus': '#009e73',
    'trailer': '#44aa99',
    'barrier': '#882255',
    'motorcycle': '#cc79a7',
    'bicycle': '#aa4499',
    'pedestrian': '#d55e00',
    'traffic_cone': '#e69f00',
}
MAP_COLORS = {'divider': '#e69f00', 'ped_crossing': '#7b5ea7', 'boundary': '#5b6675'}
#: For classes that aren't nuScenes'.
OTHER_COLORS = ('#332288', '#117733', '#88ccee', '#ddcc77', '#cc6677', '#999933')

INK = '#1a202c'
GREY = '#8a94a3'
PALE = '#e4e7eb'
PAPER = '#ffffff'
EGO = '#2d3748'
PLAN = '#d81b60'


def color_of(names: tuple[str, ...], label: int, colors: dict[str, str] = CLASS_COLORS) -> str:
    """The colour of the class ``names[label]``; grey if there is no such class."""
    if not 0 <= label < len(names):
        return GREY
    return colors.get(names[label], OTHER_COLORS[label % len(OTHER_COLORS)])

"""Lines of the map expansion round a pose: dividers, pedestrian crossings and road boundaries."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import shapely
from pyquaternion import Quaternion
from shapely import affinity
from shapely.geometry import LineString, MultiLineString, Polygon, box
from shapely.geometry.base import BaseGeometry

#: Label 0, 1 and 2.
MAP_CLASSES = ('divider', 'ped_crossing', 'boundary')
DIVIDER_LAYERS = ('road_divider', 'lane_divider')
CROSSING_LAYERS = ('ped_crossing',)
ROAD_LAYERS = ('road_segment', 'lane')
#: Metres by which the patch is shrunk before road outlines are cut, so that the patch's own border
#: is no road boundary; and grown for crossings, so that a crossing at the border stays closed.
MARGIN = 0.2

Pose = np.ndarray | Sequence[Sequence[float]]


class MapLayers:
    """The layers of one ``NuScenesMap`` that are needed, as geometries that are found by place."""

    def __init__(self, nusc_map: Any) -> None:
        self._trees = {}
        for layer in DIVIDER_LAYERS:
            lines = [nusc_map.extract_line(r['line_token']) for r in getattr(nusc_map, layer)]
            self._trees[layer] = shapely.STRtree([line for line in lines if not line.is_empty])
        for layer in CROSSING_LAYERS + ROAD_LAYERS:
            areas = [nusc_map.extract_polygon(r['polygon_token']) for r in getattr(nusc_map, layer)]
            self._trees[layer] = shapely.STRtree([area for area in areas if area.is_valid])

    def near(self, layer: str, patch: Polygon) -> list[BaseGeometry]:
        """What of a layer lies in a patch, cut at its border, in the order of the records."""
        tree = self._trees[layer]
        found = np.sort(tree.query(patch, predicate='intersects'))
        cut = shapely.intersection(tree.geometries[found], patch)
        return [geometry for geometry in cut if not geometry.is_empty]


def extract(
    nusc_map: Any, lidar2global: Pose, patch_size: tuple[float, float] = (60.0, 30.0)
) -> list[dict]:
    """Map elements round a pose, in the LiDAR frame.

    Args:
        nusc_map: A devkit ``NuScenesMap``, or its :class:`MapLayers`, which are much faster.
        lidar2global: ``(4, 4)``, or a translation (metres) and a quaternion (w, x, y, z).
        patch_size: Extent in y and x, metres.

    Returns:
        For each element ``label``, an index of ``MAP_CLASSES``, and ``pts`` ``(k, 2)`` float32,
        the vertices in metres; first dividers, then crossings, then boundaries. Closed elements
        end where they start.
    """
    layers = nusc_map if isinstance(nusc_map, MapLayers) else MapLayers(nusc_map)
    x, y, yaw = _pose(lidar2global)
    height, width = patch_size
    patch = affinity.rotate(_rectangle(width, height, x, y), yaw, origin=(x, y))

    def local(names: Iterable[str]) -> list[list[BaseGeometry]]:
        return [[_to_lidar(g, x, y, yaw) for g in layers.near(name, patch)] for name in names]

    crossing_patch = _rectangle(width + 2 * MARGIN, height + 2 * MARGIN)
    road_patch = _rectangle(width - 2 * MARGIN, height - 2 * MARGIN)
    lines = (
        [
            line
            for layer in local(DIVIDER_LAYERS)
            for geometry in layer
            for line in lines_of(geometry)
        ],
        outlines(local(CROSSING_LAYERS), crossing_patch),
        outlines(local(ROAD_LAYERS), road_patch),
    )
    return [
        dict(label=label, pts=np.asarray(line.coords, dtype=np.float32)[:, :2])
        for label, of_class in enumerate(lines)
        for line in of_class
    ]


def outlines(layers: Sequence[Sequence[BaseGeometry]], patch: Polygon) -> list[LineString]:
    """The borders of the area that polygons of some layers cover together, inside a patch.

    Outer borders run clockwise and holes anticlockwise, outer borders come first. Pieces that meet
    are joined.
    """
    united = [shapely.union_all(_areas(layer)) for layer in layers]
    polygons = _areas(united if len(united) == 1 else [shapely.union_all(united)])
    rings = [_turn(polygon.exterior, ccw=False) for polygon in polygons]
    rings += [_turn(hole, ccw=True) for polygon in polygons for hole in polygon.interiors]
    cut = [ring.intersection(patch) for ring in rings]
    joined = [
        shapely.line_merge(piece, directed=False) if isinstance(piece, MultiLineString) else piece
        for piece in cut
    ]
    return [line for piece in joined for line in lines_of(piece)]


def lines_of(geometry: BaseGeometry) -> list[LineString]:
    """The lines in a geometry; points where something only touches are left out."""
    if isinstance(geometry, LineString):  # a ring, too
        return [geometry] if geometry.length > 0 else []
    return [line for part in getattr(geometry, 'geoms', ()) for line in lines_of(part)]


def _areas(geometries: Iterable[BaseGeometry]) -> list[Polygon]:
    """The polygons in geometries; lines and points where something only touches are left out."""
    found = []
    for geometry in geometries:
        if isinstance(geometry, Polygon):
            found += [geometry] if geometry.area > 0 else []
        else:
            found += _areas(getattr(geometry, 'geoms', ()))
    return found


def _turn(ring: LineString, ccw: bool) -> LineString:
    return ring if shapely.is_ccw(ring) == ccw else shapely.reverse(ring)


def _pose(lidar2global: Pose) -> tuple[float, float, float]:
    """Position, and the angle of the LiDAR's x axis on the ground, anticlockwise, in degrees.

    The angle goes through a quaternion and degrees because the original project's does: where edges
    of roads lie on each other, the last bit decides on vertices along them.
    """
    if len(lidar2global) == 2:
        position, rotation = lidar2global[0], Quaternion(lidar2global[1])
    else:
        matrix = np.asarray(lidar2global, dtype=np.float64)
        position, rotation = matrix[:3, 3], Quaternion(matrix=matrix, atol=1e-6)
    right = Quaternion(list(rotation.q)).rotation_matrix[:, 0]
    return position[0], position[1], np.arctan2(right[1], right[0]) / np.pi * 180


def _rectangle(width: float, height: float, x: float = 0.0, y: float = 0.0) -> Polygon:
    return box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _to_lidar(geometry: BaseGeometry, x: float, y: float, yaw: float) -> BaseGeometry:
    turned = affinity.rotate(geometry, -yaw, origin=(x, y))
    return affinity.affine_transform(turned, [1, 0, 0, 1, -x, -y])

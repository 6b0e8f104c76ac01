"""The map expansion (version 1.3) of all scenes: polygons, lines and nodes, lanes and their graph."""

import hashlib

import numpy as np
from shapely.geometry import LineString, MultiPolygon, Polygon

from .geometry import resample, tangents
from .place import CANVAS, Place
from .world import World

LAYERS = (
    'polygon',
    'line',
    'node',
    'drivable_area',
    'road_segment',
    'road_block',
    'lane',
    'ped_crossing',
    'walkway',
    'stop_line',
    'carpark_area',
    'road_divider',
    'lane_divider',
    'traffic_light',
    'lane_connector',
)


def uuid(*key) -> str:
    """A token for a key, in the form of the map expansion's."""
    h = hashlib.md5('/'.join(map(str, key)).encode(), usedforsecurity=False).hexdigest()
    return f'{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}'


class MapTables:
    """Collects the layers; ``add`` once per scene, then take ``content``."""

    def __init__(self):
        self.content = {name: [] for name in LAYERS}
        self.content |= dict(
            version='1.3', canvas_edge=list(CANVAS), arcline_path_3={}, connectivity={}
        )
        self.content['name'] = 'toy'

    def add(self, scene: str, world: World, place: Place) -> None:
        """Adds the roads of one scene."""
        self.scene, self.place = scene, place
        areas = getattr(world.drivable, 'geoms', [world.drivable])
        self._put('drivable_area', 0, polygon_tokens=[self._polygon(p) for p in areas])
        segments = []
        for i, (area, junction) in enumerate(world.segments):
            segments.append(
                self._put(
                    'road_segment',
                    i,
                    polygon_token=self._polygon(area),
                    is_intersection=junction,
                    drivable_area_token='',
                )
            )
        walks = getattr(world.walkway, 'geoms', [world.walkway])
        for i, area in enumerate(walks):
            self._put('walkway', i, polygon_token=self._polygon(area))
        crossings = [
            self._put(
                'ped_crossing',
                i,
                polygon_token=self._polygon(c.area),
                road_segment_token=segments[-1],
            )
            for i, c in enumerate(world.crossings)
        ]
        for i, line in enumerate(world.stop_lines):
            self._put(
                'stop_line',
                i,
                polygon_token=self._polygon(line.area),
                road_block_token='',
                stop_line_type='PED_CROSSING',
                ped_crossing_tokens=[crossings[line.crossing]],
                traffic_light_tokens=[],
            )
        for layer, lines in (
            ('road_divider', world.road_dividers),
            ('lane_divider', world.lane_dividers),
        ):
            for i, line in enumerate(lines):
                kind = 'DOUBLE_SOLID_YELLOW' if layer == 'road_divider' else 'SINGLE_DASHED_WHITE'
                token, nodes = self._line(line)
                more = {'road_segment_token': ''} if layer == 'road_divider' else {}
                parts = [dict(node_token=n, segment_type=kind) for n in nodes]
                more |= {f'{layer}_segments': parts} if layer == 'lane_divider' else {}
                self._put(layer, i, line_token=token, **more)
        for key, lane in world.lanes.items():
            self._lane(key, lane)

    def _put(self, layer: str, key, **record) -> str:
        token = uuid(self.scene, layer, key)
        self.content[layer].append(dict(token=token, **record))
        return token

    def _nodes(self, xy: np.ndarray) -> list[str]:
        return [
            self._put('node', len(self.content['node']), x=float(x), y=float(y))
            for x, y in self.place.to_map(xy)
        ]

    def _line(self, xy: np.ndarray) -> tuple[str, list[str]]:
        thin = np.array(LineString(xy).simplify(0.02).coords)
        nodes = self._nodes(thin)
        return self._put('line', len(self.content['line']), node_tokens=nodes), nodes

    def _polygon(self, area: Polygon | MultiPolygon) -> str:
        if area.geom_type != 'Polygon':
            area = max(area.geoms, key=lambda g: g.area)
        area = area.simplify(0.02)
        rings = [np.array(r.coords)[:-1] for r in (area.exterior, *area.interiors)]
        return self._put(
            'polygon',
            len(self.content['polygon']),
            exterior_node_tokens=self._nodes(rings[0]),
            holes=[dict(node_tokens=self._nodes(r)) for r in rings[1:]],
        )

    def _lane(self, key: str, lane) -> None:
        layer = 'lane_connector' if lane.connector else 'lane'
        polygon = self._polygon(lane.area)
        ends = self._nodes(lane.middle[[0, -1]])
        more = (
            {}
            if lane.connector
            else dict(
                lane_type='CAR',
                from_edge_line_token='',
                to_edge_line_token='',
                left_lane_divider_segments=[],
                right_lane_divider_segments=[],
            )
        )
        token = self._put(layer, key, polygon_token=polygon, **more)
        self.content[layer][-1]['node_tokens' if lane.connector else 'end_node_tokens'] = ends
        self.content['arcline_path_3'][token] = arclines(self.place, lane.middle)

        def names(keys, other):
            return [uuid(self.scene, other, k) for k in keys]

        other = 'lane' if lane.connector else 'lane_connector'
        self.content['connectivity'][token] = dict(
            incoming=names(lane.before, other), outgoing=names(lane.after, other)
        )


def arclines(place: Place, middle: np.ndarray) -> list[dict]:
    """A lane's middle as arc-line paths: each some 5 m long, one arc of the right curvature."""
    xy = place.to_map(resample(middle, 5.0))
    t = tangents(place.to_map(resample(middle, 0.5)))
    yaw = np.unwrap(np.arctan2(t[:, 1], t[:, 0]))
    yaw = np.interp(np.linspace(0, 1, len(xy)), np.linspace(0, 1, len(yaw)), yaw)
    paths = []
    for p, q, a, b in zip(xy[:-1], xy[1:], yaw[:-1], yaw[1:], strict=True):
        length, turn = float(np.linalg.norm(q - p)), float(b - a)
        straight = abs(turn) < 1e-3
        radius = 999.999 if straight else length / abs(turn)
        parts = [0.0, length, 0.0] if straight else [length / 2, 0.0, length / 2]
        shape = 'LSL' if turn >= 0 else 'RSR'
        paths.append(
            dict(
                start_pose=[*map(float, p), float(a)],
                end_pose=[*map(float, q), float(b)],
                shape=shape,
                radius=radius,
                segment_length=parts,
            )
        )
    return paths

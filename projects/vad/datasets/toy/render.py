"""Draws what a camera sees: ground, scenery and agents, with depth and with owners."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from .canvas import Canvas
from .facade import facade
from .ground import Air, Ground, grain
from .rig import Camera
from .scenarios import Scenario
from .scenery import Thing
from .shapes import COLOURS, GLOWS, block, shape
from .traffic import Agent

# horizon and zenith, BGR: clear, overcast, evening
SKIES = [
    ((216, 210, 200), (196, 140, 84)),
    ((206, 206, 206), (172, 166, 158)),
    ((190, 208, 226), (184, 146, 112)),
]


@dataclass(frozen=True)
class Solid:
    """Faces of one thing in the scene's frame, ready to be drawn."""

    points: list[np.ndarray]
    normals: np.ndarray
    colours: np.ndarray  # BGR
    details: list[bool]
    middle: np.ndarray
    radius: float
    owner: int = -1
    windows: float = 0.0
    blobs: tuple = ()


def placed(faces, pose, size, colour, sun, owner=-1, windows=0.0, blobs=()) -> Solid:
    """Faces of a unit box as a solid: scaled by ``size`` (length, width, height), turned, lit."""
    x, y, yaw = pose
    c, s = np.cos(yaw), np.sin(yaw)
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    size = np.array(size)
    points = [f.points * size @ turn + [x, y, 0] for f in faces]
    normals = np.array([f.normal / size for f in faces]) @ turn
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    light = 0.52 + 0.30 * np.clip(normals @ sun, 0, 1) + 0.18 * np.clip(normals[:, 2], 0, 1)
    base = np.array([colour if f.material == 'body' else COLOURS[f.material] for f in faces], float)
    glow = np.array([f.material in GLOWS for f in faces])
    shaded = base * np.where(glow, 1.0, light)[:, None]
    return Solid(
        points,
        normals,
        shaded[:, ::-1],
        [f.detail for f in faces],
        np.array([x, y, size[2] / 2]),
        float(np.linalg.norm(size) / 2),
        owner,
        windows,
        blobs,
    )


class Renderer:
    """Draws one scene.

    Args:
        scenario: The scene, played.
        things: Its scenery.
        cameras: Of the rig.
        seed: Numbers that fix the weather.
    """

    def __init__(
        self, scenario: Scenario, things: list[Thing], cameras: list[Camera], seed: list[int]
    ):
        rng = np.random.default_rng([*seed, 7])
        self.scenario, self.ground = scenario, Ground(scenario.world)
        self.haze, zenith = SKIES[sum(seed) % len(SKIES)]
        azimuth = rng.uniform(-np.pi, np.pi)
        self.sun = np.array([0.75 * np.cos(azimuth), 0.75 * np.sin(azimuth), 0.66])
        texture = grain(np.random.default_rng(5))
        self.views = {
            c.channel: (c, Canvas(c), Air(c, self.haze, zenith, texture)) for c in cameras
        }
        self.static = [self._thing(t) for t in things if t.kind != 'light']
        self.lights = [t for t in things if t.kind == 'light']

    def _thing(self, thing: Thing) -> Solid:
        rng = np.random.default_rng(thing.seed)
        pose = (thing.x, thing.y, thing.yaw)
        if thing.kind == 'building':
            faces = block(-0.5, 0.5, 0.5, 0.0, 1.0, 'body', 'dark')
            return placed(
                faces, pose, thing.size, thing.colour, self.sun, windows=rng.uniform(2.4, 3.6)
            )
        if thing.kind == 'lamp':
            faces = block(-0.3, 0.3, 0.3, 0.0, 1.0, 'body') + block(
                -6.0, 0.3, 0.3, 0.97, 1.0, 'body'
            )
            return placed(
                faces, (thing.x, thing.y, thing.yaw + np.pi / 2), thing.size, thing.colour, self.sun
            )
        height = thing.size[2]
        blobs = []
        for _ in range(7):
            r = height * rng.uniform(0.16, 0.26)
            at = np.append(rng.normal(0, 0.11 * height, 2), height * rng.uniform(0.5, 0.95))
            tone = (0.55 + 0.5 * (at[2] / height - 0.4)) * rng.uniform(0.85, 1.15)
            ring = r * rng.uniform(0.85, 1.12, 14)
            blobs.append((at + [thing.x, thing.y, 0], ring, np.array(thing.colour[::-1]) * tone))
        faces = block(-0.5, 0.5, 0.5, 0.0, 0.6, 'body')
        return placed(faces, pose, thing.size, (82, 64, 50), self.sun, blobs=tuple(blobs))

    def _light(self, thing: Thing, t: float) -> Solid:
        span = self.scenario.red.get(thing.arm)
        red = span is not None and span[0] <= t < span[1]
        faces = block(-0.4, 0.4, 0.4, 0.0, 1.0, 'body') + block(-0.9, 0.9, 0.9, 0.74, 1.0, 'under')
        solid = placed(faces, (thing.x, thing.y, thing.yaw), thing.size, thing.colour, self.sun)
        front = np.array([np.cos(thing.yaw), np.sin(thing.yaw), 0.0])
        on, off = ((40, 40, 255), (20, 44, 24)) if red else ((20, 20, 60), (120, 235, 70))
        lamps = tuple(
            (np.array([thing.x, thing.y, z]) + front * 0.24, np.full(14, 0.15), colour, front)
            for z, colour in ((3.95, on), (3.4, off))
        )
        return replace(solid, radius=2.2, blobs=lamps)

    def _agent(self, number: int, agent: Agent, t: float) -> Solid:
        x, y, yaw = agent.pose(t)
        s, v, a = agent.motion(t)
        braking = (
            agent.category.startswith('vehicle') and agent.cruise > 0 and (a < -0.5 or v < 0.3)
        )
        step = int(s / 1.4 * 8) % 8 if agent.walker and v > 0.2 else 0
        width, length, height = agent.size
        faces = shape(agent.category, bool(braking), step, agent.cruise <= 0)
        return placed(faces, (x, y, yaw), (length, width, height), agent.colour, self.sun, number)

    def frame(self, t: float) -> tuple[list[Solid], list[np.ndarray]]:
        """Solids and shadows at the time ``t`` (seconds) of a key frame."""
        agents = list(enumerate(self.scenario.agents))[1:]
        solids = [self._agent(i, a, t) for i, a in agents]
        shadows = []
        for _, agent in agents:
            box = agent.footprint(t, 0.05)
            cast = box - self.sun[:2] / self.sun[2] * min(agent.size[2] * 0.8, 2.4)
            shadows.append(cv2.convexHull(np.concatenate([box, cast]).astype(np.float32))[:, 0])
        return solids + [self._light(t_, t) for t_ in self.lights] + self.static, shadows

    def draw(self, channel: str, pose, solids, shadows) -> tuple[np.ndarray, np.ndarray, dict]:
        """The picture of a camera with the ego at ``pose`` (x, y, yaw).

        Returns:
            The picture (h, w, 3) BGR, the owners (h, w), and for each agent in it the pixels
            seen and the pixels it would fill with nothing before it.
        """
        camera, canvas, air = self.views[channel]
        x, y, yaw = pose
        c, s = np.cos(yaw), np.sin(yaw)
        body = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        turn = camera.rotation.T @ body
        eye = np.array([x, y, 0]) + body.T @ camera.position
        to_camera = np.concatenate([turn, -(turn @ eye)[:, None]], 1)
        canvas.start()
        canvas.image[:] = (62, 108, 90)
        self.ground.draw(canvas, to_camera, np.array([x, y]))
        for shadow in shadows:
            if np.hypot(*(shadow[0] - [x, y])) < 60:
                canvas.shade(np.c_[shadow, np.zeros(len(shadow))] @ turn.T + to_camera[:, 3], 0.62)
        air.finish(canvas.image, pose)
        full = {}
        for solid in solids:
            pixels = self._solid(canvas, solid, turn, to_camera[:, 3], eye)
            if pixels:
                full[solid.owner] = pixels
        seen = np.bincount(canvas.owner[canvas.owner >= 0], minlength=max(full, default=0) + 1)
        return canvas.image, canvas.owner, {k: (int(seen[k]), n) for k, n in full.items() if k >= 0}

    def _solid(self, canvas: Canvas, solid: Solid, turn, shift, eye) -> int:
        middle = turn @ solid.middle + shift
        if middle[2] < -solid.radius or middle[2] > 120 + solid.radius:
            return 0
        wide = max(canvas.size[0] / canvas.focal[0], 1.2) * 0.62
        if abs(middle[0]) > wide * max(middle[2], 0) + 1.7 * solid.radius:
            return 0
        veil = 1 - np.exp(-max(middle[2], 0) / 190)
        colours = solid.colours * (1 - veil) + np.array(self.haze) * veil
        small = canvas.focal[1] * solid.middle[2] * 2 < 15 * max(middle[2], 1)
        for points, normal, colour, detail in zip(
            solid.points, solid.normals, colours, solid.details, strict=True
        ):
            if (detail and small) or normal @ (eye - points[0]) <= 0:
                continue
            own = points @ turn.T + shift
            paint = None
            if solid.windows and abs(normal[2]) < 0.1 and middle[2] < 90:
                top = 2 * solid.middle[2]
                paint = facade(own[0], turn @ normal, turn[:, 2], eye[2], solid.windows, top)
            canvas.face(
                own,
                turn @ normal,
                colour,
                solid.owner,
                1.004 if detail else 1.0,
                paint,
                count=solid.owner >= 0 and not detail,
            )
        for blob in solid.blobs:
            self._blob(canvas, turn, shift, veil, *blob)
        return canvas.outline() if solid.owner >= 0 else 0

    def _blob(self, canvas: Canvas, turn, shift, veil, at, ring, colour, front=None) -> None:
        """A disc that faces the camera (foliage), or looks along ``front`` (a lamp)."""
        middle = turn @ at + shift
        if middle[2] < 1.0 or (front is not None and (turn @ front)[2] > -0.05):
            return
        angle = np.arange(len(ring)) * 2 * np.pi / len(ring)
        points = middle + np.stack([ring * np.cos(angle), ring * np.sin(angle), 0 * angle], 1)
        colour = np.array(colour) * (1 - veil) + np.array(self.haze) * veil
        canvas.face(
            points, np.array([0.0, 0.0, 1.0]), colour, bias=1.004 if front is not None else 1.0
        )

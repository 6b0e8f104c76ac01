"""The ego's sensors: six cameras and a LiDAR, mounted much like those of nuScenes.

Ego frame: x ahead, y left, z up, origin on the ground below the middle of the rear axle.
"""

from dataclasses import dataclass

import numpy as np
from pyquaternion import Quaternion

LIDAR = 'LIDAR_TOP'
LIDAR_POSITION = np.array([0.94, 0.0, 1.84])
LIDAR_ROTATION = Quaternion(axis=[0, 0, 1], angle=-np.pi / 2)  # x to the right, y ahead
# position; yaw, pitch (down), roll in degrees; focal length and principal point at 1600x900;
# exposure after the LiDAR sweep in microseconds
CAMERAS = {
    'CAM_FRONT': ((1.70, 0.02, 1.51), (0.0, 0.4, 0.1), 1266.4, (816.3, 491.5), -4000),
    'CAM_FRONT_RIGHT': ((1.55, -0.49, 1.50), (-55.4, 0.5, -0.2), 1260.8, (807.9, 495.3), 3000),
    'CAM_FRONT_LEFT': ((1.52, 0.49, 1.51), (55.2, 0.3, 0.3), 1272.6, (826.6, 479.8), -9000),
    'CAM_BACK': ((0.03, 0.0, 1.57), (179.7, 0.6, 0.0), 809.2, (829.2, 481.8), 11000),
    'CAM_BACK_LEFT': ((1.04, 0.48, 1.59), (108.3, 0.4, 0.2), 1256.7, (792.1, 492.8), 7000),
    'CAM_BACK_RIGHT': ((1.01, -0.48, 1.56), (-110.2, 0.5, -0.1), 1259.5, (807.3, 501.2), -7000),
}
FULL = (1600, 900)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera on the ego.

    Args:
        channel: nuScenes name.
        position: In the ego frame, metres.
        rotation: Of the camera axes (x right, y down, z ahead) into the ego frame (3, 3).
        intrinsic: (3, 3), for ``size``.
        size: width, height in pixels.
        delay: Exposure after the LiDAR sweep, microseconds.
    """

    channel: str
    position: np.ndarray
    rotation: np.ndarray
    intrinsic: np.ndarray
    size: tuple[int, int]
    delay: int


def cameras(size: tuple[int, int]) -> list[Camera]:
    """The six cameras with pictures of ``size`` (width, height)."""
    rig = []
    for channel, (position, angles, focal, centre, delay) in CAMERAS.items():
        yaw, pitch, roll = np.radians(angles)
        mount = (
            Quaternion(axis=[0, 0, 1], angle=yaw)
            * Quaternion(axis=[0, 1, 0], angle=pitch)
            * Quaternion(axis=[1, 0, 0], angle=roll)
        )
        axes = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
        scale = np.array(size) / FULL
        intrinsic = np.eye(3)
        intrinsic[[0, 1], [0, 1]] = focal * scale
        intrinsic[:2, 2] = np.array(centre) * scale
        rotation = mount.rotation_matrix @ axes
        rig.append(Camera(channel, np.array(position), rotation, intrinsic, size, delay))
    return rig


def quaternion(rotation: np.ndarray) -> list[float]:
    """w, x, y, z of a rotation matrix, as plain numbers."""
    return [float(x) for x in Quaternion(matrix=rotation, atol=1e-6).elements]


def yaw_quaternion(yaw: float) -> list[float]:
    """w, x, y, z of a turn about the vertical axis."""
    return [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))]

"""Poses and quaternions (w, x, y, z), many at a time."""

import numpy as np
from pyquaternion import Quaternion


def pose_matrix(record: dict) -> np.ndarray:
    """``(4, 4)`` of a table's record with ``translation`` (metres) and ``rotation``."""
    matrix = np.eye(4)
    matrix[:3, :3] = Quaternion(record['rotation']).rotation_matrix
    matrix[:3, 3] = record['translation']
    return matrix


def inverse_pose(pose: np.ndarray) -> np.ndarray:
    """The inverse of a rotation and a translation ``(4, 4)``."""
    inverse = np.eye(4)
    inverse[:3, :3] = pose[:3, :3].T
    inverse[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return inverse


def to_local(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Points ``(..., 3)`` of the outer frame, in the frame that has this pose ``(4, 4)`` in it."""
    return (points - pose[:3, 3]) @ pose[:3, :3]


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products of quaternions ``(..., 4)``: first b turns, then a."""
    aw, ax, ay, az = np.moveaxis(np.asarray(a, dtype=np.float64), -1, 0)
    bw, bx, by, bz = np.moveaxis(np.asarray(b, dtype=np.float64), -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def conjugate(quaternions: np.ndarray) -> np.ndarray:
    """The opposite turns."""
    return np.asarray(quaternions, dtype=np.float64) * [1, -1, -1, -1]


def unit(quaternions: np.ndarray) -> np.ndarray:
    """Quaternions of length 1."""
    quaternions = np.asarray(quaternions, dtype=np.float64)
    return quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True)


def zyx_yaw(quaternions: np.ndarray) -> np.ndarray:
    """Yaw, turning by yaw first, then pitch, then roll about the turned axes; radians."""
    w, x, y, z = np.moveaxis(quaternions, -1, 0)
    return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def xyz_yaw(quaternions: np.ndarray) -> np.ndarray:
    """Yaw with the opposite order of axes, as pyquaternion's ``yaw_pitch_roll`` has it; radians.

    The two differ where something is tilted; info files hold this one in ``gt_boxes`` and the
    other in ``gt_agent_fut_yaw``.
    """
    w, x, y, z = np.moveaxis(quaternions, -1, 0)
    return np.arctan2(2 * (w * z - x * y), 1 - 2 * (y * y + z * z))

"""What the car itself measured: CAN bus messages of a scene."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from projects.prune_plugin.common.errors import UserError

if TYPE_CHECKING:
    from nuscenes.can_bus.can_bus_api import NuScenesCanBus

SIZE = 18
#: Metres between the axles, as the curvature is counted.
WHEEL_BASE = 2.588


class SceneCan:
    """The messages of one scene; some scenes have none.

    Args:
        can_bus: The expansion.
        scene: Name, such as ``scene-0061``.
    """

    def __init__(self, can_bus: NuScenesCanBus, scene: str) -> None:
        self.pose = _messages(can_bus, scene, 'pose')
        self.steering = _messages(can_bus, scene, 'steeranglefeedback')

    def vector(self, time: int) -> np.ndarray:
        """The network's 18 numbers at a time in microseconds; zeros where there are no messages.

        Position and orientation (w, x, y, z) are those of the last message up to then; acceleration,
        rotation rate and velocity those of the first one after it, as in the published info files.
        The last two numbers are 0: the data set fills in the angle.
        """
        vector = np.zeros(SIZE)
        if not self.pose:
            return vector
        after = int(np.searchsorted([m['utime'] for m in self.pose], time, side='right'))
        last = self.pose[max(after - 1, 0)]
        following = self.pose[min(after, len(self.pose) - 1)]
        vector[:7] = [*last['pos'], *last['orientation']]
        vector[7:16] = [*following['accel'], *following['rotation_rate'], *following['vel']]
        return vector

    def speed_and_curvature(self, time: int, left_hand_traffic: bool) -> tuple[float, float] | None:
        """Speed in m/s and curvature (positive to the left) of the messages nearest to a time.

        None where there are no messages. Where traffic keeps to the left, the sign is flipped.
        """
        if not self.pose or not self.steering:
            return None
        steering = _nearest(self.steering, time)['value'] * (-1 if left_hand_traffic else 1)
        return _nearest(self.pose, time)['vel'][0], 2 * steering / WHEEL_BASE


def _nearest(messages: list[dict], time: int) -> dict:
    """The message nearest in time, the later one of two equally near."""
    times = [message['utime'] for message in messages]
    i = int(np.searchsorted(times, time))
    if i == len(times) or (i > 0 and time - times[i - 1] < times[i] - time):
        i -= 1
    return messages[i]


def _messages(can_bus: NuScenesCanBus, scene: str, kind: str) -> list[dict]:
    path = os.path.join(can_bus.can_dir, f'{scene}_{kind}.json')
    number = scene.rpartition('-')[2]
    known_to_be_bad = number.isdecimal() and int(number) in can_bus.can_blacklist
    if known_to_be_bad or not os.path.isfile(path):
        return []
    try:
        return can_bus.get_messages(scene, kind)
    except ValueError as error:
        raise UserError(f'CAN bus file {path} is not JSON ({error}); unpack it again') from error

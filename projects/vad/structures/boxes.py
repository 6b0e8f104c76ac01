"""VAD's boxes: plain ``(n, 9)`` tensors, and what else they have to be written as.

A VAD box is ``x, y, z, w, l, h, yaw, vx, vy`` in the LiDAR frame (x right, y forward, z up; metres,
metres per second), with z at the **bottom** and the yaw of MMDetection3D before 1.0: clockwise from
-y, so that an angle counted anticlockwise from +x is ``-yaw - pi / 2``. Published weights predict
it, and info files hold it, so it is kept throughout; MMDetection3D's own box type is made for
display and for nuScenes' evaluation alone.
"""

import math

import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from torch import Tensor

SIZE = 9


def gravity_center(boxes: Tensor) -> Tensor:
    """Centres ``(n, 3)`` at half height of boxes ``(n, >= 6)`` whose z is at the bottom."""
    center = boxes[:, :3].clone()
    center[:, 2] += boxes[:, 5] * 0.5
    return center


def with_gravity_center(boxes: Tensor) -> Tensor:
    """The boxes with z at half height instead of at the bottom."""
    return torch.cat([gravity_center(boxes), boxes[:, 3:]], dim=-1)


def with_bottom_center(boxes: Tensor) -> Tensor:
    """The boxes with z at the bottom instead of at half height."""
    boxes = boxes.clone()
    boxes[:, 2] -= boxes[:, 5] * 0.5
    return boxes


def heading(boxes: Tensor) -> Tensor:
    """Angles ``(n,)`` of the boxes' fronts, anticlockwise from +x, in radians."""
    return -boxes[:, 6] - math.pi / 2


def to_lidar_boxes(boxes: Tensor) -> LiDARInstance3DBoxes:
    """MMDetection3D's boxes (length before width, yaw anticlockwise from +x), with velocities."""
    dims = boxes[:, [4, 3, 5]]
    tensor = torch.cat([boxes[:, :3], dims, heading(boxes)[:, None], boxes[:, 7:]], dim=-1)
    return LiDARInstance3DBoxes(tensor, box_dim=tensor.shape[-1])


def from_lidar_boxes(boxes: LiDARInstance3DBoxes) -> Tensor:
    """VAD boxes of MMDetection3D's; velocities are 0 where those have none."""
    tensor = boxes.tensor
    yaw = -tensor[:, 6:7] - math.pi / 2
    velocity = tensor[:, 7:9] if tensor.shape[-1] >= SIZE else tensor.new_zeros(len(tensor), 2)
    return torch.cat([tensor[:, :3], tensor[:, [4, 3, 5]], yaw, velocity], dim=-1)


def corners(boxes: Tensor) -> Tensor:
    """The eight corners ``(n, 8, 3)``: the bottom four, then the top four.

    Each four run front left, front right, rear right, rear left as seen by the box.
    """
    angle = heading(boxes)
    front = torch.stack([angle.cos(), angle.sin()], dim=-1)
    left = torch.stack([-angle.sin(), angle.cos()], dim=-1)
    along = boxes.new_tensor([0.5, 0.5, -0.5, -0.5])[None, :, None] * boxes[:, 4, None, None]
    across = boxes.new_tensor([0.5, -0.5, -0.5, 0.5])[None, :, None] * boxes[:, 3, None, None]
    footprint = boxes[:, None, :2] + along * front[:, None] + across * left[:, None]
    bottom = boxes[:, 2, None, None].expand(-1, 4, 1)
    top = bottom + boxes[:, 5, None, None]
    return torch.cat(
        [torch.cat([footprint, bottom], dim=-1), torch.cat([footprint, top], dim=-1)], dim=1
    )

"""Example calls of MMDetection3D's detectors of point clouds."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ...structure.discovery.call import Call

#: Points of an example.
POINTS = 4096
#: Numbers per point that networks read: position, and intensity, time or colour.
WIDTHS = (4, 5, 3, 6, 9)
#: Half the size of the space they lie in where the model doesn't say, in metres.
REACH = 3.0


def point_cloud_calls(model: nn.Module) -> Iterator[Call]:
    """Calls with random points that give a detector's features, some of which may fail.

    Args:
        model: The model; others than detectors with MMDetection3D's preprocessor give none.
    """
    preprocessor = getattr(model, 'data_preprocessor', None)
    if not hasattr(preprocessor, 'voxel'):
        return
    for width in WIDTHS:
        try:
            inputs = preprocess(preprocessor, random_points(preprocessor, width))
        except Exception:  # whatever its code raises for points of another width
            continue
        yield Call((inputs,), method='extract_feat')
        yield Call((inputs.get('voxels'),), method='extract_pts_feat')
        if hasattr(model, 'decode_head'):
            yield Call((torch.stack(inputs['points']),), method='extract_feat')


def random_points(preprocessor: nn.Module, width: int) -> Tensor:
    """Random points (POINTS, width) in the space that the voxels cover."""
    layer = getattr(preprocessor, 'voxel_layer', None)
    space = getattr(layer, 'point_cloud_range', None)
    corners = [-REACH] * 3 + [REACH] * 3
    if space is not None and len(space) == 6:
        corners = [float(number) for number in space]
    low, high = corners[:3], corners[3:]
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(POINTS, width, generator=generator)
    points[:, :3] = torch.tensor(low) + points[:, :3] * (torch.tensor(high) - torch.tensor(low))
    return points


def preprocess(preprocessor: nn.Module, points: Tensor) -> dict[str, Any]:
    """What a detector gets of points."""
    from mmdet3d.structures import Det3DDataSample

    data = dict(inputs=dict(points=[points]), data_samples=[Det3DDataSample()])
    return preprocessor(data, False)['inputs']

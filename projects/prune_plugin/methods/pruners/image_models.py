"""Example calls of OpenMMLab's models of images."""

from collections.abc import Iterator
from itertools import product

import torch
from torch import nn

from ...evaluation.example_inputs import data_sample_kwargs
from ...structure.discovery.call import Call

#: Edges of an example image, in pixels: the second where the first is too small.
EDGES = (224, 512)
#: Backbones of images, each with its neck.
BACKBONES = {'backbone': 'neck', 'img_backbone': 'img_neck'}


def image_calls(model: nn.Module) -> Iterator[Call]:
    """Calls with a random image, some of which may fail.

    Args:
        model: The model; others than those with a preprocessor and a backbone of images give none.
    """
    backbone = next((part for name in BACKBONES if (part := part_of(model, name))), None)
    if not hasattr(model, 'data_preprocessor') or backbone is None:
        return
    first = next((m for m in backbone.modules() if isinstance(m, nn.Conv2d)), None)
    of_points = part_of(model, 'backbone') and hasattr(model.data_preprocessor, 'voxel')
    if first is None or of_points:
        return
    mean = getattr(model.data_preprocessor, 'mean', None)
    known = [len(mean)] if isinstance(mean, torch.Tensor) and mean.dim() else []
    generator = torch.Generator().manual_seed(0)
    for edge, channels in product(EDGES, dict.fromkeys((*known, first.in_channels))):
        image = torch.randn(1, channels, edge, edge, generator=generator).to(first.weight)
        yield Call((image,), data_sample_kwargs(model, image))
        yield from calls_of_features(model, Call((image,)))


def calls_of_features(model: nn.Module, call: Call) -> Iterator[Call]:
    """Calls that give an OpenMMLab detector's features, for images alone: its heads may want more."""
    if hasattr(model, 'extract_feat') and call.args:
        yield Call(call.args[:1], method='extract_feat')
        yield Call((dict(imgs=call.args[0]),), method='extract_feat')  # MMDetection3D's
    for backbone, neck in BACKBONES.items() if call.args else ():  # of videos, of several cameras
        if part_of(model, backbone):
            if part_of(model, neck):
                yield Call(call.args[:1], method=f'{backbone}|{neck}')
            yield Call(call.args[:1], method=backbone)


def part_of(model: nn.Module, name: str) -> nn.Module | None:
    """A module of a model, if it has one of that name."""
    part = getattr(model, name, None)
    return part if isinstance(part, nn.Module) else None

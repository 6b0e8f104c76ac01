"""Detectors that are called with descriptions of their images, as functions of one image."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...evaluation.example_inputs import data_sample_kwargs


class OneImage(nn.Module):
    """A detector of mmdet whose forward pass takes data samples, on one image of a fixed size.

    The data samples say that the image fills its batch, without padding.

    Args:
        model: The detector.
        input_shape: Channels, height and width.
    """

    def __init__(self, model: nn.Module, input_shape: Sequence[int]):
        super().__init__()
        self.model, self.input_shape = model, tuple(input_shape)

    def forward(self, inputs: Tensor) -> Any:
        """The raw outputs for ``(1, channels, height, width)``."""
        return self.model(inputs, **data_sample_kwargs(self.model, inputs))

    def export_example(self, seed: int) -> dict[str, Tensor]:
        """A random image."""
        generator = torch.Generator().manual_seed(seed)
        return dict(inputs=torch.randn(1, *self.input_shape, generator=generator))


def as_one_image(model: nn.Module, input_shape: Sequence[int] | None) -> nn.Module:
    """A model as :class:`OneImage` where it takes data samples, otherwise itself."""
    if input_shape is None or len(input_shape) != 3:
        return model
    needed = data_sample_kwargs(model, torch.empty(1, *input_shape, device='meta'))
    return OneImage(model, input_shape) if needed else model

"""GridMask augmentation of images (https://arxiv.org/abs/2001.04086)."""

import numpy as np
import torch
from torch import Tensor, nn


class GridMask(nn.Module):
    """Keep a grid of bars and blank the squares between them, now and then, while training.

    Args:
        ratio: Width of the bars as a fraction of the period.
        prob: Probability that a batch is masked.
    """

    def __init__(self, ratio: float = 0.5, prob: float = 0.7):
        super().__init__()
        self.ratio = ratio
        self.prob = prob

    def forward(self, images: Tensor) -> Tensor:
        """Mask all images ``(n, C, H, W)`` of a batch alike, or return them as they are."""
        if not self.training or np.random.rand() > self.prob:
            return images
        height, width = images.shape[-2:]
        period = np.random.randint(2, height)
        bar = min(max(int(period * self.ratio + 0.5), 1), period - 1)
        rows, columns = (self.bars(size, period, bar, images.device) for size in (height, width))
        return images * (rows[:, None] | columns)

    @staticmethod
    def bars(size: int, period: int, bar: int, device: torch.device) -> Tensor:
        """Which of ``size`` lines lie in a bar."""
        start = np.random.randint(period)
        # The mask is cut from the middle of one half as large again, which holds whole periods.
        whole = int(1.5 * size)
        lines = torch.arange(size, device=device) + (whole - size) // 2 - start
        return (lines >= 0) & (lines < whole // period * period) & (lines % period < bar)

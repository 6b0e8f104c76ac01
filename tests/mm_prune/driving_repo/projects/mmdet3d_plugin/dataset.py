"""Noise that is brighter on the side to turn to."""

import torch
from mmengine.registry import DATASETS
from torch import Tensor
from torch.utils.data import Dataset


@DATASETS.register_module()
class Roads(Dataset):
    """``length`` images, (3, 16, 16), each with its turn: 0 left, 1 right."""

    def __init__(self, length: int):
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        turn = index % 2
        image = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(index))
        image[:, :, 8 * turn : 8 * turn + 8] += 0.1
        return dict(inputs=image, turn=torch.tensor(turn))

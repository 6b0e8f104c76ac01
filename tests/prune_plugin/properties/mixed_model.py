"""A small model with something in it for every finder that isn't for one family."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import nn


class BasicBlock(nn.Module):
    """Found by BottleneckChannels through its class name."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, width, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(self.bn1(self.conv1(x)).relu())


@MODELS.register_module()
class FuzzedModel(BaseModel):
    """Images into 5 classes: channels, heads, neurons and a branch."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.block = BasicBlock(8, 6)
        layer = nn.TransformerEncoderLayer(8, 4, 12, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.branch = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5))

    def forward(self, inputs, labels=None, mode='tensor'):
        x = self.block(self.stem(inputs)).flatten(2).mT
        x = self.branch(self.encoder(x).mean(1))
        return x if labels is None else dict(loss_class=F.cross_entropy(x, labels))


def samples(number: int = 6) -> list[dict]:
    """Random images with labels, always the same."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(number, 3, 4, 4, generator=generator)
    return [dict(inputs=image, labels=i % 5) for i, image in enumerate(images)]

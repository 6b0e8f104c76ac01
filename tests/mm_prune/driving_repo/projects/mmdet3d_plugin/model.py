"""A small residual network."""

import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """A residual block, with its layers named as in torchvision."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


@MODELS.register_module()
class Driver(BaseModel):
    """Left or right, from one image."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(BasicBlock(width), BasicBlock(width))
        self.turn = nn.Linear(4 * width, 2)

    def forward(self, inputs: Tensor, turn: Tensor | None = None, mode: str = 'tensor'):
        pooled = F.adaptive_avg_pool2d(self.blocks(self.stem(inputs)), 2)
        logits = self.turn(pooled.flatten(1))
        if mode == 'loss':
            return dict(loss=F.cross_entropy(logits, turn))
        if mode == 'predict':
            return [dict(predicted=p, turn=t) for p, t in zip(logits.argmax(1), turn, strict=True)]
        return logits

"""Prunes two plain models where only the wheel, torch and MMEngine are installed; run by its test."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import walk_packages

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

import mm_prune
from mm_prune import build_pruner, slim

ABSENT = ('matplotlib', 'mmcv', 'mmdet', 'peft', 'timm', 'torchvision', 'transformers')
#: Its class derives from one of peft's; the adapters import it when they are used.
NEEDS_PEFT = 'projects.prune_plugin.training.lora.lora_linear'


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
class PlainResNet(nn.Sequential):
    """A stem, two blocks and a linear layer."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3), BasicBlock(8), BasicBlock(8),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
        )  # fmt: skip


class Attention(nn.Module):
    """Self-attention, with its layers and widths named as in timm."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = heads, width // heads, width
        self.qkv, self.norm, self.proj = (
            nn.Linear(width, 3 * width),
            nn.Identity(),
            nn.Linear(width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.num_heads, self.head_dim)
        out = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        return self.proj(self.norm(out.transpose(1, 2).reshape(batch, length, self.attn_dim)))


class Mlp(nn.Module):
    """Two linear layers, named as in timm."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm layer."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, 4)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


@MODELS.register_module()
class PlainViT(nn.Module):
    """Patches of 4 x 4 pixels, two blocks and a linear layer."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.blocks = nn.Sequential(Block(16), Block(16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def check_environment(installed: Path) -> None:
    """The plugin is the installed one, and what it must do without isn't there."""
    present = [name for name in ABSENT if find_spec(name)]
    assert not present, present
    for module in (mm_prune, mm_prune.prune_plugin):
        assert Path(module.__file__).is_relative_to(installed), module.__file__


def check_imports() -> None:
    """Every module of the plugin can be imported, but the one that needs peft."""
    package = mm_prune.prune_plugin
    for found in walk_packages(package.__path__, f'{package.__name__}.'):
        if found.name != NEEDS_PEFT:
            import_module(found.name)


def check_pruning(kind: str, units: set[str], file: Path) -> None:
    """A pruned model, saved and built again by ``SlimModel``, computes what the pruned one does."""
    model = MODELS.build(dict(type=kind)).eval()
    before = sum(p.numel() for p in model.parameters())
    cfg = dict(criterion=dict(type='L1'), allocator=dict(type='Uniform'))
    pruner = build_pruner(dict(cfg, budget=dict(type='params', ratio=0.3)))
    state = pruner.plan(model).state
    assert {group.kind for group in state.reduced} == units
    slim(model, state)
    assert sum(p.numel() for p in model.parameters()) <= 0.7 * before
    torch.save(dict(state_dict=model.state_dict(), meta=dict(prune_state=state.to_dict())), file)
    again = MODELS.build(dict(type='SlimModel', model=dict(type=kind), prune_state=str(file)))
    again.load_state_dict(torch.load(file, weights_only=True)['state_dict'])
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(again.eval()(images), model(images), rtol=0, atol=0)


def main(installed: Path, folder: Path) -> None:
    check_environment(installed)
    check_imports()
    torch.manual_seed(0)
    check_pruning('PlainResNet', {'channel'}, folder / 'resnet.pth')
    check_pruning('PlainViT', {'attention', 'mlp'}, folder / 'vit.pth')


if __name__ == '__main__':
    main(*map(Path, sys.argv[1:]))

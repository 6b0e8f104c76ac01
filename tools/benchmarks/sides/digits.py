"""Real pictures of digits as tensors, and one plain training loop for dense and pruned models alike."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from projects.vit.datasets.digits import load_digits_split

MEAN, STD = 0.2988, 0.3237
BATCH = 64


@cache
def digits(split: str, channels: int = 1) -> tuple[Tensor, Tensor]:
    """Normalised images ``(N, channels, 32, 32)``, all channels alike, and labels ``(N,)``."""
    images, labels = load_digits_split(split)
    pixels = (torch.from_numpy(images).float() / 255 - MEAN) / STD
    return pixels.expand(-1, channels, -1, -1).contiguous(), torch.from_numpy(labels).long()


def train(model: nn.Module, channels: int, steps: int, lr: float, seed: int) -> nn.Module:
    """Train in place: AdamW, a tenth of warm-up, then cosine; the seed alone says which batches.

    Args:
        model: Takes images, gives logits.
        channels: Of the images.
        steps: Of 64 images each.
        lr: The largest learning rate.
        seed: Of the order of images.
    """
    images, labels = digits('train', channels)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    model.train()
    order = torch.randperm(len(labels), generator=generator)
    for _ in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(len(labels), generator=generator)
        rows, order = order[:BATCH], order[BATCH:]
        optimizer.zero_grad()
        cross_entropy(model(images[rows]), labels[rows]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def quality(model: nn.Module, channels: int) -> dict[str, float]:
    """Top-1 accuracy in percent and cross entropy on the 360 test images."""
    images, labels = digits('test', channels)
    logits = torch.cat([model(part) for part in images.split(120)])
    top1 = 100 * (logits.argmax(1) == labels).double().mean()
    return dict(top1=float(top1), loss=float(cross_entropy(logits, labels)))

"""Models to prune, and what is measured on them: classifiers of digits."""

from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from projects.prune_plugin.calibration.data import CalibrationData

from .digits import digits, quality, train

ROOT = Path(__file__).resolve().parents[3]
#: Arguments of one forward call.
Example = tuple[tuple, dict[str, Any]]


class DigitsTask:
    """A timm classifier of 32 x 32 images of digits, trained from scratch with every seed.

    Attributes:
        channels: Of the images.
        ratio: Fraction of all parameters to remove.
        seeds: Of the dense model's training, calibration and fine-tuning.
        dense_steps: Of the dense model's training.
        dense_lr: Its learning rate.
        tune_steps: Of fine-tuning, the same for all.
        tune_lr: Its learning rate.
        repeats: How often each pruning is timed.
        latency_seconds: To time forward passes in.
        head_shares: What torch-pruning is to remove of heads; see :func:`sides.measure.match`.
    """

    channels = 1
    ratio = 0.7
    seeds: tuple[int, ...] = (0, 1, 2)
    dense_steps = 550
    dense_lr = 1e-3
    tune_steps = 44
    tune_lr = 5e-4
    repeats = 3
    samples, batch = 128, 32
    head_shares: tuple[float | None, ...] = (None,)
    latency_seconds = 30.0
    latency_batch, latency_size = 8, 32
    folder = ROOT / 'work_dirs' / 'side_by_side'
    methods: tuple[str, ...] = (
        'here', 'here_taylor', 'here_uniform', 'here_random',
        'peer', 'peer_inner', 'peer_taylor', 'peer_taylor_inner', 'peer_taylor_raw',
    )  # fmt: skip

    @property
    def profile(self) -> dict[str, Any]:
        """What a budget of FLOPs needs to know."""
        return dict(input_shape=(self.channels, self.latency_size, self.latency_size))

    def build(self) -> nn.Module:
        """A fresh model."""
        raise NotImplementedError

    def dense(self, seed: int) -> nn.Module:
        """The trained model, from an earlier run if there was one."""
        torch.manual_seed(seed)
        model = self.build()
        path = self.folder / f'{type(self).__name__}_{self.dense_steps}_{seed}.pth'
        if path.is_file():
            model.load_state_dict(torch.load(path, weights_only=True))
            return model.eval()
        train(model, self.channels, self.dense_steps, self.dense_lr, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), path)
        return model

    def data(self, settings) -> CalibrationData:
        """Calibration samples, as the plugin asks for them."""
        return CalibrationData(
            dict(
                dataset=list(zip(*digits('train', self.channels), strict=True)),
                collate_fn=dict(type='default_collate'),
            ),
            **settings.sampling,
        )

    def samples_of(self, seed: int) -> CalibrationData:
        """The same samples for torch-pruning."""
        from projects.prune_plugin.calibration.settings import CalibrationSettings

        return self.data(CalibrationSettings(self.samples, seed, self.batch))

    def loss(self, model: nn.Module, batch: list[Tensor]) -> Tensor:
        """Mean cross entropy."""
        images, labels = batch
        return cross_entropy(model(images), labels)

    def quality(self, model: nn.Module) -> dict[str, float]:
        """What the model is worth."""
        return quality(model, self.channels)

    def recover(self, model: nn.Module, seed: int) -> nn.Module:
        """The same short fine-tuning for all."""
        return train(model, self.channels, self.tune_steps, self.tune_lr, seed)

    def example(self, batch: int | None = None) -> Example:
        """Input to time the model on, and to count FLOPs with ``batch=1``."""
        shape = (self.channels, self.latency_size, self.latency_size)
        return (torch.zeros(batch or self.latency_batch, *shape),), {}

    def peer_options(self, model: nn.Module, widths: str, heads: float) -> dict[str, Any]:
        """What torch-pruning must be told of the model."""
        raise NotImplementedError

    def peer_done(self, model: nn.Module, pruner) -> None:
        """What torch-pruning leaves to its user after the cut."""


class Vit(DigitsTask):
    """The ViT of projects/configs/ViT/vit_tiny_digits.py."""

    head_shares = (None, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)

    def build(self) -> nn.Module:
        """A fresh model."""
        return timm.create_model(
            'vit_tiny_patch16_224', num_classes=10, img_size=32, patch_size=8, in_chans=1,
            embed_dim=128, depth=6, num_heads=8,
        )  # fmt: skip

    def peer_options(self, model: nn.Module, widths: str, heads: float) -> dict[str, Any]:
        """Whole heads are to go, and the tracer needs to see the products of attention."""
        ignored, numbers = [model.head], {}
        for block in model.blocks:
            block.attn.fused_attn = False
            numbers[block.attn.qkv] = block.attn.num_heads
        if widths == 'inner':
            ignored.append(model.patch_embed.proj)
            for block in model.blocks:
                ignored += [block.attn.proj, block.mlp.fc2]
        return dict(
            model=model,
            example_inputs=torch.zeros(1, self.channels, 32, 32),
            ignored_layers=ignored,
            num_heads=numbers,
            prune_num_heads=True,
            prune_head_dims=False,
            head_pruning_ratio=heads,
        )

    def peer_done(self, model: nn.Module, pruner) -> None:
        """timm's attention has to know how many heads are left; and back to the fused kernel."""
        for block in model.blocks:
            attn = block.attn
            attn.num_heads = pruner.num_heads[attn.qkv]
            attn.attn_dim = attn.qkv.out_features // 3
            attn.fused_attn = True


class ResNet50(DigitsTask):
    """timm's ResNet-50 on digits; time and FLOPs of an image of 224 x 224."""

    channels = 3
    seeds = (0,)  # a second one takes five minutes more
    dense_steps = 132
    tune_steps = 22
    latency_batch, latency_size = 1, 224
    latency_seconds = 40.0
    methods = (
        'here', 'here_taylor', 'here_taylor_flops', 'here_taylor_coupled', 'here_uniform', 'here_random',
        'peer', 'peer_inner', 'peer_taylor', 'peer_taylor_inner',
    )  # fmt: skip

    def build(self) -> nn.Module:
        """A fresh model."""
        return timm.create_model('resnet50', num_classes=10)

    def peer_options(self, model: nn.Module, widths: str, heads: float) -> dict[str, Any]:
        """The classifier stays; 'inner' leaves the widths of the stages alone, too."""
        ignored = [model.fc]
        if widths == 'inner':
            ignored.append(model.conv1)
            for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
                for block in stage:
                    ignored += [block.conv3, *([block.downsample] if block.downsample else [])]
        return dict(
            model=model,
            example_inputs=torch.zeros(1, self.channels, 32, 32),
            ignored_layers=ignored,
        )

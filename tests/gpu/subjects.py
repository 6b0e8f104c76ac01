"""A ViT, a ResNet, a Llama and a VAD, each with batches, for a CPU or the pretended GPU."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import BOTH, BY_NAME, CHANNELS, flat
from emulator import DEVICE, put
from mmengine import dist
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import BaseDataElement
from refitting import Batches
from torch import Tensor, nn

VAD_NANO = Path(__file__).parents[2] / 'projects/configs/VAD/VAD_nano_toy.py'


class BatchesOfRank(Batches):
    """Of the batches this rank's, as CalibrationData gives them."""

    def __iter__(self):
        rank, world = dist.get_dist_info()
        return (batch for batch in super().__iter__() if batch[0] % world == rank)


@dataclass(frozen=True)
class Subject:
    """A model to prune.

    Attributes:
        name: Id of the row.
        build: Makes the dense model, always with the same weights.
        batch: Makes the ``number``-th batch, on the CPU: what :attr:`loss` takes.
        loss: A number that depends on the model and a batch.
        units: ``prune_cfg.units``.
    """

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[int], Any]
    loss: Callable[[nn.Module, Any], Tensor]
    units: tuple[dict, ...]

    def model(self, gpu: bool) -> nn.Module:
        """The dense model, in evaluation mode."""
        model = self.build()
        model.eval()  # which a ResNet of MMDetection doesn't return
        return put(model) if gpu else model

    def data(self, gpu: bool, count: int = 3) -> Batches:
        """Calibration batches."""
        return BatchesOfRank([self.on(gpu, self.batch(number)) for number in range(count)])

    @staticmethod
    def on(gpu: bool, batch: Any) -> Any:
        """A batch where the model is."""
        return moved(batch) if gpu else batch


def moved(batch: Any) -> Any:
    """Tensors and data samples of a batch, on the pretended GPU."""
    if isinstance(batch, Tensor | BaseDataElement):
        return batch.to(DEVICE)
    if isinstance(batch, dict):
        return {key: moved(value) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(moved(value) for value in batch)
    return batch


def of_case(name: str, row: str, units: tuple[dict, ...]) -> Subject:
    """A row of the test matrix."""
    case = BY_NAME[row]

    def batch(number: int) -> tuple[Tensor, ...]:
        torch.manual_seed(number)
        inputs = case.inputs()
        return tuple(x.roll(number, -1) if number else x for x in inputs)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return flat(model(*batch)).square().mean()

    def build() -> nn.Module:
        model = case.dense()
        if name == 'llama':
            model.config.use_cache = False  # transformers' cache is made from a list in each pass
        return model

    return Subject(name, build, batch, loss, units)


def vad(nano: bool = False) -> Subject:
    """The tiny VAD, or the toy drive's VAD_nano in full size, on six small images."""
    pytest.importorskip('mmdet3d')
    import tiny_vad

    from projects.prune_plugin.calibration.loss import mmengine_loss

    def build() -> nn.Module:
        if not nano:
            return tiny_vad.build()
        torch.manual_seed(0)
        init_default_scope('mmdet3d')
        return tiny_vad.wake(MODELS.build(Config.fromfile(VAD_NANO).model)).eval()

    def batch(number: int) -> dict:
        rig = tiny_vad.rig(6) if nano else tiny_vad.rig()
        frames = [tiny_vad.frame(i, lidar2img=rig) for i in (number, number + 1)]
        sample = tiny_vad.sample(tiny_vad.relative(frames), truth=True)
        images = tiny_vad.images(1, 2, number)[0]
        if nano:
            images = torch.cat([images, images.flip(-1)], 1)
        return dict(inputs=dict(img=[images]), data_samples=[sample])

    units = (dict(type='DeformableHeads'), *BOTH, dict(type='BranchNeurons'))
    return Subject('vad_nano' if nano else 'vad', build, batch, mmengine_loss, units)


def subjects() -> dict[str, Callable[[], Subject]]:
    """By name; made when a test asks, as not all need what is installed."""
    return {
        'vit': lambda: of_case('vit', 'vit', BOTH),
        'resnet': lambda: of_case('resnet', 'mmdet_resnet18', (CHANNELS,)),
        'llama': lambda: of_case('llama', 'llama-gqa', BOTH),
        'vad': vad,
        'vad_nano': lambda: vad(nano=True),
    }


NAMES = [name for name in subjects() if name != 'vad_nano']

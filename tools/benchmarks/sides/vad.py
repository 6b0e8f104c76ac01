"""VAD to prune: the tiny model with random weights, and the small one that has learnt the toy drive."""

from functools import cached_property
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import projects.vad  # noqa: F401
from projects.prune_plugin.calibration.data import CalibrationData
from projects.prune_plugin.calibration.loss import mmengine_loss
from projects.prune_plugin.calibration.settings import CalibrationSettings
from projects.prune_plugin.checkpoints.model_loading import load_model
from projects.prune_plugin.evaluation.example_inputs import example_input
from projects.prune_plugin.evaluation.test_set import TestSet

from .tasks import ROOT, Example

CONFIGS = ROOT / 'projects' / 'configs' / 'VAD'


class VadTask:
    """A VAD of a config, which isn't trained afterwards; for the attributes see ``DigitsTask``.

    torch-pruning is asked twice: for the whole model, and with a forward function that ends behind the
    neck, so that it sees the image backbone and the neck alone.
    """

    config: str
    ratio = 0.3
    seeds: tuple[int, ...] = (0,)
    repeats = 1
    samples, batch = 32, 1
    head_shares = (None,)
    latency_seconds = 40.0
    recover = None
    profile: dict[str, Any] = {}  # VAD knows its own input
    methods: tuple[str, ...] = (
        'here', 'here_flops', 'here_uniform', 'here_random', 'peer', 'peer_images',
    )  # fmt: skip

    @cached_property
    def cfg(self) -> Config:
        """The config, without pretrained weights."""
        cfg = Config.fromfile(CONFIGS / f'{self.config}.py')
        init_default_scope(cfg.default_scope)
        cfg.model.img_backbone.init_cfg = None
        return cfg

    def dense(self, seed: int) -> nn.Module:
        """The model before pruning."""
        torch.manual_seed(seed)
        model = MODELS.build(self.cfg.model).eval()
        model.init_weights()
        return model

    def data(self, settings) -> CalibrationData:
        """Calibration frames, as the plugin asks for them."""
        return CalibrationData(self.cfg.train_dataloader, **settings.sampling)

    def samples_of(self, seed: int) -> CalibrationData:
        """The same frames for torch-pruning."""
        return self.data(CalibrationSettings(self.samples, seed, self.batch))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The sum of all losses."""
        return mmengine_loss(model, batch)

    def quality(self, model: nn.Module) -> dict[str, float]:
        """Nothing: the weights are random."""
        return {}

    def example(self, batch: int | None = None) -> Example:
        """A frame of a made-up rig, whatever the batch."""
        return self.frame

    @cached_property
    def frame(self) -> Example:
        """Arguments of a forward call."""
        return example_input(MODELS.build(self.cfg.model), 1)

    def peer_options(self, model: nn.Module, widths: str, heads: float) -> dict[str, Any]:
        """The whole model from its own example input, or the part that sees images."""
        model.requires_grad_(True)  # torch-pruning follows the gradients' graph
        if widths == 'images':
            return dict(
                model=model,
                example_inputs=torch.zeros(1, 1, 3, 96, 160),
                forward_fn=lambda model, images: model.extract_feat(images),
                ignored_layers=[model.pts_bbox_head, model.img_neck.fpn_convs],
            )
        model.memory = None
        model.input_shape = (model.input_shape[0], 96, 160)  # the graph is the same, sooner
        return dict(
            model=model,
            example_inputs=example_input(model, 1)[1],
            forward_fn=lambda model, inputs: model(**inputs),
            output_transform=differentiable,
        )

    def peer_done(self, model: nn.Module, pruner) -> None:
        """Forget the frame that was traced."""
        model.memory = None


def differentiable(outputs: Any) -> list[Tensor]:
    """Tensors of nested outputs that a gradient flows to."""
    return [t for t in tree_leaves(outputs) if getattr(t, 'grad_fn', None) is not None]


class VadTiny(VadTask):
    """VAD-tiny with random weights: time, memory, FLOPs and latency."""

    config = 'VAD_tiny_stage_2'


class VadToy(VadTask):
    """VAD_nano_toy as vad_toy.py has trained it: the planned path and the map right after pruning."""

    config = 'VAD_nano_toy'
    checkpoint = ROOT / 'ckpts' / 'vad_nano_toy.pth'
    latency_seconds = 20.0
    methods = (
        'here', 'here_taylor', 'here_taylor_flops', 'here_uniform', 'here_random', 'peer', 'peer_images',
        'peer_images_taylor',
    )  # fmt: skip

    def dense(self, seed: int) -> nn.Module:
        """The trained model."""
        return load_model(self.cfg, str(self.checkpoint)).model.eval()

    def quality(self, model: nn.Module) -> dict[str, float]:
        """Mean planning error up to 1, 2 and 3 s in metres, and the map's mean precision."""
        found = TestSet(self.cfg).evaluate(model, 'pruned')
        errors = [found[f'planning/plan_L2_{t}s'] for t in (1, 2, 3)]
        return dict(plan_l2=sum(errors) / 3, map_ap=found['NuscMap_chamfer/mAP'])

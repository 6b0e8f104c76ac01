"""VAD-tiny in its full size: masking equals removing."""

from copy import deepcopy
from pathlib import Path

import pytest
import tiny_vad
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from projects.prune_plugin import build_pruner, mask, slim
from projects.vad.models.dummy import ring_of_cameras

CONFIG = Path(__file__).parents[2] / 'projects' / 'configs' / 'VAD' / 'VAD_tiny_stage_2.py'
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def dense() -> nn.Module:
    cfg = Config.fromfile(CONFIG)
    init_default_scope(cfg.default_scope)
    cfg.model.img_backbone.init_cfg = None
    torch.manual_seed(0)
    return MODELS.build(cfg.model).eval()


def two_frames(model: nn.Module) -> list[dict[str, torch.Tensor]]:
    """The raw outputs of two frames of one scene; the second remembers the first."""
    cameras, height, width = model.input_shape
    rig = dict(lidar2img=ring_of_cameras(cameras, height, width), img_shape=(height, width))
    generator = torch.Generator().manual_seed(0)
    outputs = []
    model.reset()
    with torch.no_grad():
        for number in range(2):
            images = torch.randn(1, 1, cameras, 3, height, width, generator=generator)
            sample = tiny_vad.sample([tiny_vad.frame(number, **rig)])
            outputs.append(model(dict(img=images), [sample]))
    return outputs


@pytest.mark.parametrize('ratio', [0.3, 0.5])
def test_mask_equals_slim_over_two_frames(dense, ratio):
    budget = dict(type='params', ratio=ratio)
    plan = build_pruner(dict(allocator=dict(type='Uniform'), budget=budget)).plan(dense)
    kinds = {g.kind for g in plan.state.reduced}
    assert kinds == {'channel', 'deformable', 'attention', 'mlp', 'branch'}
    masked = two_frames(mask(deepcopy(dense), plan.state))
    slimmed = two_frames(slim(deepcopy(dense), plan.state))
    for one, other in zip(masked, slimmed, strict=True):
        assert one.keys() == other.keys()
        for name, values in one.items():
            assert (values - other[name]).abs().max() < 1e-5 * values.abs().max(), name
    before = two_frames(dense)
    assert (before[1]['ego_fut_preds'] - slimmed[1]['ego_fut_preds']).abs().max() > 1e-3

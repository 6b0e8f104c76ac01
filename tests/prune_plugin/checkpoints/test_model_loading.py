"""Weights that a config begins with, and that can't be had."""

from urllib.error import URLError

import pytest
from mmengine.config import Config
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from projects.prune_plugin import UserError, build_pruner, slim
from projects.prune_plugin.checkpoints.checkpoint_file import save_file
from projects.prune_plugin.checkpoints.model_loading import load_model


class Backbone(BaseModule):
    """One linear layer that may begin with a file."""

    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.linear = nn.Linear(2, 2)


class Detector(BaseModel):
    """A model with a backbone."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = Backbone(backbone.get('init_cfg'))

    def forward(self, inputs):
        """The backbone's output."""
        return self.backbone.linear(inputs)


def config(monkeypatch, init_cfg) -> Config:
    monkeypatch.setattr(MODELS, '_module_dict', {**MODELS.module_dict, 'Detector': Detector})
    return Config(dict(model=dict(type='Detector', backbone=dict(init_cfg=init_cfg))))


@pytest.mark.parametrize('path', ['gone.pth', 'torchvision://resnet50'])
def test_weights_that_cannot_be_had_are_named_with_the_way_out(monkeypatch, path):
    def no_network(filename, map_location='cpu', logger=None):
        raise URLError('Name or service not known') if '://' in filename else FileNotFoundError

    monkeypatch.setattr(CheckpointLoader, 'load_checkpoint', no_network)
    cfg = config(monkeypatch, dict(type='Pretrained', checkpoint=path))
    with pytest.raises(UserError) as caught:
        load_model(cfg, None)
    said = str(caught.value)
    assert said.startswith(f'model.backbone.init_cfg names {path!r}')
    assert said.endswith('--cfg-options model.backbone.init_cfg=None')


def test_the_way_out_works(monkeypatch):
    cfg = config(monkeypatch, dict(type='Pretrained', checkpoint='gone.pth'))
    cfg.merge_from_dict({'model.backbone.init_cfg': None})
    assert load_model(cfg, None).model.backbone.linear.weight.isfinite().all()


@MODELS.register_module(force=True)
class TwoWidths(BaseModel):
    """An attention of some heads, called as the units of the plugin know it."""

    def __init__(self, heads: int):
        super().__init__()
        self.attn = nn.MultiheadAttention(16, heads, batch_first=True)

    def forward(self, inputs):
        """Self-attention."""
        return self.attn(inputs, inputs, inputs)[0]


def test_a_slim_checkpoint_of_another_model_is_named_with_the_config(tmp_path):
    model = TwoWidths(4)
    pruner = build_pruner(dict(budget=dict(type='units', ratio=0.5), min_keep=0))
    slim(model, state := pruner.plan(model).state)
    path, file = tmp_path / 'slim.pth', tmp_path / 'other.py'
    save_file(dict(meta=dict(prune_state=state.to_dict()), state_dict=model.state_dict()), path)
    file.write_text("model = dict(type='TwoWidths', heads=2)\n")
    with pytest.raises(UserError) as caught:
        load_model(Config.fromfile(file), str(path))
    said = str(caught.value)
    assert said.startswith(
        f'checkpoint {path} belongs to another model than config {file}; give the dense config that it was '
        "pruned with (prune_state.groups['attn']: "
    )
    assert said.count('belongs to another model') == 1

"""Weights that a config begins with, and that can't be had."""

from urllib.error import URLError

import pytest
from mmengine.config import Config
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from projects.prune_plugin import UserError
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

"""The prune tool on VAD-tiny in its full size, without any data set."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from tool_runs import ROOT

import projects.vad  # noqa: F401
from projects.prune_plugin.checkpoints.model_loading import load_model

CONFIG = ROOT / 'projects/configs/VAD/VAD_tiny_stage_2.py'
PARAMETERS = 39_865_999
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    cfg = Config.fromfile(CONFIG)
    init_default_scope(cfg.default_scope)
    cfg.model.img_backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    path = tmp_path_factory.mktemp('full') / 'VAD_tiny.pth'
    torch.save(dict(meta=dict(epoch=12), state_dict=model.state_dict()), path)
    return path


@pytest.mark.parametrize('ratio', [0.1, 0.3, 0.5])
def test_the_tool_prunes_it_without_data(checkpoint, ratio, run_tool, tmp_path):
    folder = tmp_path / 'pruned'
    run_tool(
        'analysis_tools/analysis_struct', CONFIG, checkpoint, '--pruning-ratio', ratio,
        '--output-dir', folder,
    )  # fmt: skip
    report = json.loads((folder / 'report.json').read_text())
    cfg = Config.fromfile(CONFIG)
    parameters = {}
    for name in ('vad_pruned', 'vad_structured_pruned'):
        model = load_model(cfg, str(folder / f'{name}.pth')).model
        parameters[name] = sum(p.numel() for p in model.parameters())
    assert parameters['vad_pruned'] == PARAMETERS
    removed = 1 - parameters['vad_structured_pruned'] / PARAMETERS
    assert ratio <= removed < ratio + 0.005
    assert report['achieved']['params'] == pytest.approx(removed)
    assert report['achieved']['flops'] > 0 and report['dense']['metrics'] is None

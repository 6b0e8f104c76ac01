"""Every config of ``LLM/`` and its bases: what they build, without network or weights."""

import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import projects.llm  # noqa: F401
from projects.prune_plugin import pruner_from_config

CONFIGS = Path(__file__).resolve().parents[2] / 'projects' / 'configs'
PARAMETERS = {
    'smollm2_135m': 134_515_008,
    'opt_125m': 125_239_296,
    'opt_350m': 331_196_416,
    'opt_1.3b': 1_315_758_080,
    'opt_2.7b': 2_651_596_800,
    'qwen': 596_049_920,
    'llama3_8b': 8_030_261_248,
    'llama3_70b': 70_553_706_496,
    'llama3_405b': 405_853_388_800,
}
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader', 'calibration_dataloader')


def load(name: str) -> Config:
    return Config.fromfile(CONFIGS / 'LLM' / f'{name}.py')


@pytest.mark.parametrize('name', PARAMETERS)
def test_dense_configs(name):
    cfg = load(name)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    for key in LOADERS:
        data = cfg[key].dataset
        assert data.tokenizer == cfg.model.path, key
        assert data.window <= model.max_window
    assert len((CONFIGS / 'LLM' / f'{name}.py').read_text().splitlines()) < 40


@pytest.mark.parametrize(
    ('name', 'rounds'),
    [('opt_125m_imp50', 7), ('opt_2.7b_imp90', 22), ('opt_125m_imp95', 29), ('opt_350m_imp95', 29)],
)
def test_rounds_of_iterative_magnitude_pruning(name, rounds):
    """As many as the tool that this replaces documents."""
    assert len(pruner_from_config(load(name)).rounds) == rounds


def test_the_small_protocol():
    cfg = load('smollm2_135m')
    test, calibration = cfg.test_dataloader.dataset, cfg.calibration_dataloader.dataset
    assert (test.split, test.window, test.max_windows) == ('test', 512, 10)
    assert (calibration.split, calibration.window, calibration.seed) == ('valid', 512, 0)
    assert (calibration.starts, calibration.num_windows) == ('random', 32)
    assert (cfg.train_dataloader.dataset.split, cfg.val_dataloader.dataset.split) == (
        'valid',
        'test',
    )


@pytest.mark.parametrize('base', ['wikitext2', 'wikitext2_small', 'c4', 'text', 'pydoc'])
def test_bases_differ_in_data_alone(base):
    cfg = Config.fromfile(CONFIGS / '_base_' / 'datasets' / f'{base}.py')
    for key in LOADERS:
        assert cfg[key].dataset.type == 'TokenWindows'
        assert cfg[key].dataset.window == (2048 if base in ('wikitext2', 'c4') else 512)
    assert cfg.calibration_dataloader.dataset.starts == 'random'


def test_environment_names_another_model(monkeypatch):
    monkeypatch.setitem(os.environ, 'LLM_PATH', '/models/mine')
    cfg = load('opt_125m')
    assert cfg.model.path == cfg.train_dataloader.dataset.tokenizer == '/models/mine'

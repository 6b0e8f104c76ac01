"""The pruning configs of VAD: what they add, and that what they ask for can be had."""

from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from projects.prune_plugin import build_pruner, slim

CONFIGS = Path(__file__).parents[2] / 'projects' / 'configs' / 'VAD'
PRUNED = sorted(
    path
    for path in CONFIGS.glob('*.py')
    if ('prune_cfg' in path.read_text() or 'prune/' in path.read_text())
    and 'IterativePruneLoop' not in path.read_text()
)
RATIOS = {
    'VAD_tiny_prune0.1': 0.1,
    'VAD_tiny_prune0.3': 0.3,
    'VAD_tiny_prune0.5': 0.5,
    'VAD_base_prune0.3': 0.3,
    'VAD_nano_toy_prune0.3': 0.3,
    'VAD_nano_toy_trained_prune0.3': 0.3,
    'VAD_tiny_l1_prune0.3': 0.3,
    'VAD_tiny_planning0.3': 0.3,
}


#: Those that retrain on other data than the dense config names.
OWN_DATA = {'VAD_nano_toy_trained_prune0.3': 'VAD_nano_toy_train'}


def dense_of(name: str) -> str:
    if name in OWN_DATA:
        return OWN_DATA[name]
    size = name.split('_')[1]
    return 'VAD_nano_toy' if size == 'nano' else f'VAD_{size}_stage_2'


@cache
def on_meta(name: str) -> nn.Module:
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_all_are_there():
    assert set(RATIOS) <= {path.stem for path in PRUNED}


@pytest.mark.parametrize('path', PRUNED, ids=lambda path: path.stem)
def test_adds_only_what_prunes(path):
    assert len(path.read_text().splitlines()) <= (30 if path.stem in OWN_DATA else 10)
    cfg, dense = Config.fromfile(path), Config.fromfile(CONFIGS / f'{dense_of(path.stem)}.py')
    mine, base = cfg.to_dict(), dense.to_dict()
    for key in ('prune_cfg', 'load_from'):
        mine.pop(key), base.pop(key, None)
    if path.stem in OWN_DATA:
        assert mine['model'].pop('auxiliary') == [] != base['model'].pop('auxiliary')
        roots = {d['data_root'] for d in mine.pop('train_dataloader')['dataset']['datasets']}
        others = {d['data_root'] for d in base.pop('train_dataloader')['dataset']['datasets']}
        assert len(roots) == 1 and not roots & others
    assert mine == base
    build_pruner(cfg.prune_cfg.to_dict())


@pytest.mark.parametrize('name', RATIOS)
def test_the_ratio_is_within_half_a_percent(name):
    """By random scores, as neither weights nor data are at hand."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    prune_cfg = cfg.prune_cfg.to_dict()
    assert prune_cfg['budget'] == dict(type='params', ratio=RATIOS[name])
    prune_cfg['criterion'] = dict(type='Random')
    prune_cfg.get('calibration', {}).pop('loss_weights', None)
    dense = on_meta(dense_of(name))
    plan = build_pruner(prune_cfg).plan(dense)
    removed = 1 - size(slim(deepcopy(dense), plan.state)) / size(dense)
    assert RATIOS[name] <= removed < RATIOS[name] + 0.005
    kinds = {group.kind for group in plan.groups}
    assert {'attention', 'deformable', 'mlp', 'branch', 'channel'} <= kinds


def test_planning_is_protected():
    cfg = Config.fromfile(CONFIGS / 'VAD_tiny_planning0.3.py')
    assert build_pruner(cfg.prune_cfg.to_dict()).calibration.loss_weights == dict(planning=4.0)

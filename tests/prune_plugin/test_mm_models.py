"""Unchanged configs of mmdet and mmdet3d: mask equals slim, exact budget, reload, a training step."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tools' / 'benchmarks'))
mm_models = pytest.importorskip('mm_models')

#: The fastest; the others are slow.
FAST = ('Faster R-CNN', 'RetinaNet', 'DETR')
MODELS = [
    label if label in FAST else pytest.param(label, marks=pytest.mark.slow)
    for label in mm_models.CONFIGS
]


@pytest.mark.parametrize('label', MODELS)
def test_unchanged_configs_are_pruned(label, tmp_path):
    pytest.importorskip('mmcv.ops')
    file = mm_models.config_file(label)
    if file is None:
        pytest.skip(f'no {mm_models.CONFIGS[label][1]} in the installed package')
    found = mm_models.run_model(label, file, tmp_path)
    assert mm_models.RATIO <= found['achieved'] < mm_models.RATIO + 1e-3
    assert found['mask_slim'] < 1e-4
    assert found['reload'] == 0
    assert found['dense_slim'] is None or found['dense_slim'] > 1e-3  # something has gone
    training = found['training']
    assert training['finite'] and 0 < training['loss'] < float('inf')
    assert training['changed'] > 0.9 * training['trainable']
    # What is looked at besides the known units may be outputs.
    told = found['not_prunable'].values()
    assert all('output' in why for why in told), told
    assert all(reason for reason in found['uncovered'].values())


def test_what_no_unit_owns_is_told_with_a_reason():
    from torch import nn

    from projects.prune_plugin import StructuredPruner
    from projects.prune_plugin.structure.units.coverage import uncovered

    model = nn.Sequential()
    model.branch = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
    model.norm, model.output = nn.LayerNorm(2), nn.Linear(2, 3)
    model.gru = nn.GRU(3, 2)
    groups = StructuredPruner(budget=dict(type='params', ratio=0.1)).plan(model).groups
    assert uncovered(model, groups) == {
        'norm': 'LayerNorm: norms over widths that stay; 4 parameters',
        'output': 'Linear between widths that stay, as other modules share them; 9 parameters',
        'gru': 'GRU: no finder knows it; 42 parameters',
    }

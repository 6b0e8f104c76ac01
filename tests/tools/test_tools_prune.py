"""``tools/analysis_struct.py`` and ``tools/test.py``: what they write, and that it all agrees."""

import csv
import json
import re

import pytest
import torch
from tool_runs import CONFIG, SMALL, options

RATIO = 0.4
STEPS = {'load', 'calibrate', 'score', 'allocate', 'slim', 'save', 'evaluate'}


@pytest.fixture(scope='module')
def pruned(run_tool, checkpoint, tmp_path_factory):
    """Output directory of one pruning, and how it ended."""
    folder = tmp_path_factory.mktemp('pruned') / 'new' / 'out'
    table = folder.parent.parent / 'scores.csv'
    ended = run_tool(
        'analysis_struct', CONFIG, checkpoint, '--pruning-ratio', RATIO, '--output-dir', folder,
        '--save-table', table, '--gpus', 3, *options(),
    )  # fmt: skip
    return folder, ended, table


@pytest.fixture(scope='module')
def report(pruned) -> dict:
    return json.loads((pruned[0] / 'report.json').read_text())


def load(path) -> dict:
    return torch.load(path, weights_only=True)


def test_everything_is_there_and_nothing_else(pruned):
    names = {path.name for path in pruned[0].iterdir()}
    (log,) = (name for name in names if re.fullmatch(r'\d{8}_\d{6}', name))
    assert names - {log} == {
        'vit_pruned.pth', 'vit_structured_pruned.pth', 'report.json', 'summary.csv', 'report.csv',
        'report.html', 'units.csv', 'global_group_table.csv', 'groups_to_prune.csv', 'kept_share.png',
        'metrics_params.png', 'zeros.csv',
    }  # fmt: skip


def test_several_gpus_without_a_launcher_are_a_warning(pruned):
    assert '3 devices asked for, but --launcher none runs one process' in pruned[1].err
    assert 'world size 1' in pruned[1].out


def test_report(report):
    assert report['asked'] == {'budget': 'params', 'ratio': RATIO}
    for stage in ('dense', 'pruned'):
        assert {'params', 'flops', 'latency_ms', 'metrics'} <= set(report[stage])
        assert report[stage]['latency_ms'] > 0 and report[stage]['flops'] > 0
        assert set(report[stage]['metrics']) == {'accuracy/top1', 'accuracy/top5'}
    assert set(report['achieved']) == {'params', 'flops', 'latency', 'zeros'}
    assert report['budget']['quantity'] == 'params'
    assert report['budget']['achieved'] == report['achieved']['params']
    assert set(report['seconds']) >= STEPS
    for group in report['groups']:
        assert {'name', 'kind', 'size', 'kept'} <= set(group)
    assert {(g['kind'], g['size']) for g in report['groups']} == {('attention', 4), ('mlp', 256)}


def test_counts_by_hand(report):
    """Two layers of width 64 with heads of 16, patches of 8 on a 32 x 32 image of one channel."""
    kept = {g['name'].removeprefix('backbone.'): g['kept'] for g in report['groups']}

    def params(kept):
        total = 64 * 64 + 64 + 64 + 17 * 64 + 128 + 64 * 10 + 10
        for i in range(2):
            inner, hidden = 16 * kept[f'blocks.{i}.attn'], kept[f'blocks.{i}.mlp']
            total += 3 * (64 * inner + inner) + inner * 64 + 64
            total += 64 * hidden + hidden + hidden * 64 + 64 + 256
        return total

    def flops(kept):
        total = 16 * 64 * 64 + 64 * 10
        for i in range(2):
            inner, hidden = 16 * kept[f'blocks.{i}.attn'], kept[f'blocks.{i}.mlp']
            total += 17 * 64 * 4 * inner + 2 * 17 * 17 * inner + 2 * 17 * 64 * hidden
        return 2 * total

    dense = {name: 4 if name.endswith('attn') else 256 for name in kept}
    for stage, units in (('dense', dense), ('pruned', kept)):
        assert report[stage]['params'] == params(units)
        assert report[stage]['flops'] == flops(units)
    removed = 1 - report['pruned']['params'] / report['dense']['params']
    assert report['achieved']['params'] == pytest.approx(removed)
    assert RATIO <= removed < RATIO + 0.01
    assert report['achieved']['zeros'] == pytest.approx(RATIO, abs=1e-3)


def test_tables(pruned, report):
    with open(pruned[0] / 'units.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        'layer_idx', 'group_type', 'group_idx', 'importance', 'cost', 'score', 'pruned',
    ]  # fmt: skip
    scores = [float(row['score']) for row in rows]
    assert len(rows) == 2 * (4 + 256) and scores == sorted(scores)
    gone = sum(int(row['pruned']) for row in rows)
    assert gone == sum(g['size'] - g['kept'] for g in report['groups'])
    with open(pruned[0] / 'report.csv', newline='') as file:
        groups = list(csv.DictReader(file))
    assert [int(g['kept']) for g in groups] == [g['kept'] for g in report['groups']]


def test_checkpoints_describe_themselves(pruned, checkpoint, report):
    slim = load(pruned[0] / 'vit_structured_pruned.pth')
    state = slim['meta']['prune_state']
    assert state['asked'] == report['asked']
    assert {n: len(g['kept']) for n, g in state['groups'].items()} == {
        g['name']: g['kept'] for g in report['groups']
    }
    params = [w for n, w in slim['state_dict'].items()]
    assert sum(w.numel() for w in params) >= report['pruned']['params']
    assert slim['meta']['epoch'] == 2 and slim['optimizer']['state']
    masked = load(pruned[0] / 'vit_pruned.pth')
    assert 'prune_state' not in masked['meta'] and masked['masks']
    for meta in (slim['meta'], masked['meta']):  # with the ratio of the command line
        assert meta['prune_cfg'] == report['prune_cfg']
        assert meta['prune_cfg']['budget']['ratio'] == RATIO
    dense = torch.load(checkpoint, weights_only=False)['state_dict']
    assert {n: w.shape for n, w in masked['state_dict'].items()} == {
        n: w.shape for n, w in dense.items()
    }
    zeros = sum(int((masked['state_dict'][name] == 0).sum()) for name in masked['masks'])
    weights = sum(masked['state_dict'][name].numel() for name in masked['masks'])
    assert zeros / weights == pytest.approx(report['achieved']['zeros'], abs=1e-3)


def test_the_console_shows_the_report(pruned, report):
    out = pruned[1].out
    for part in (f'{report["dense"]["params"]:,}', f'{report["pruned"]["params"]:,}', 'accuracy'):
        assert part in out


def test_test_takes_the_dense_config(pruned, report, run_tool, tmp_path):
    """Also: only the metric asked for, and the dense and the masked checkpoint work too."""
    slim = pruned[0] / 'vit_structured_pruned.pth'
    ended = run_tool(
        'test', CONFIG, slim, '--eval', 'accuracy', '--work-dir', tmp_path / 'work',
        '--cfg-options', *SMALL,
    )  # fmt: skip
    expected = report['pruned']['metrics']['accuracy/top1']
    assert f'accuracy/top1: {expected:.4f}' in ended.out


def test_a_second_pruning_from_the_slim_checkpoint(pruned, report, call_tool, tmp_path):
    slim = pruned[0] / 'vit_structured_pruned.pth'
    ended = call_tool(
        'analysis_struct', CONFIG, slim, '--pruning-ratio', 0.3, '--output-dir', tmp_path / 'two',
        *options(),
    )  # fmt: skip
    assert ended.code == 0, ended.out
    again = json.loads((tmp_path / 'two' / 'report.json').read_text())
    assert again['dense']['params'] == report['pruned']['params']
    assert again['dense']['metrics'] == report['pruned']['metrics']
    first = load(slim)['meta']['prune_state']['groups']
    path = tmp_path / 'two' / 'vit_structured_pruned.pth'
    second = load(path)['meta']['prune_state']['groups']
    for name, group in second.items():
        assert group['size'] == first[name]['size']  # relative to the dense model
        assert set(group['kept']) <= set(first[name]['kept'])
    ended = call_tool(
        'test', CONFIG, path, '--work-dir', tmp_path / 'work', '--cfg-options', *SMALL
    )
    assert f'accuracy/top1: {again["pruned"]["metrics"]["accuracy/top1"]:.4f}' in ended.out


def test_a_saved_table_gives_the_same_units(pruned, checkpoint, call_tool, tmp_path):
    folder, _, table = pruned
    for name, extra in (('direct', ()), ('table', ('--from-table', table))):
        ended = call_tool(
            'analysis_struct', CONFIG, checkpoint, '--pruning-ratio', 0.25, '--output-dir',
            tmp_path / name, *extra, *options(),
        )  # fmt: skip
        assert ended.code == 0
    kept = [
        load(tmp_path / name / 'vit_structured_pruned.pth')['meta']['prune_state']['groups']
        for name in ('direct', 'table')
    ]
    assert kept[0] == kept[1]


def test_dry_run_writes_nothing(checkpoint, call_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = call_tool('analysis_struct', CONFIG, checkpoint, '--dry-run', *options())
    assert ended.code == 0 and 'params removed' in ended.out
    assert list(tmp_path.iterdir()) == []
    ended = call_tool(
        'analysis_struct', CONFIG, checkpoint, '--dry-run', '--save-table', 't.csv', *options()
    )
    assert ended.code == 0
    assert [path.name for path in tmp_path.iterdir()] == ['t.csv']


def test_without_a_checkpoint_or_a_data_set(call_tool, tmp_path):
    """Fresh weights and magnitude need neither; the report says so by what it lacks."""
    ended = call_tool(
        'analysis_struct', CONFIG, '--output-dir', tmp_path / 'out',
        *options('test_dataloader=None', 'test_evaluator=None', 'train_dataloader=None'),
    )  # fmt: skip
    assert ended.code == 0, ended.out
    assert 'weights are freshly initialised' in ended.out
    assert 'evaluation of the dense model skipped' in ended.out
    report = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert report['asked'] == {'budget': 'params', 'ratio': 0.3}
    assert report['dense']['metrics'] is None and report['checkpoint'] is None


def test_weight_level_pruning_alone(checkpoint, call_tool, tmp_path):
    ended = call_tool(
        'analysis_struct', CONFIG, checkpoint, '--pruning-ratio', 0.5, '--output-dir',
        tmp_path / 'out',
        *options('prune_cfg.type=WeightPruner', 'prune_cfg.sparsifier.type=Magnitude',
                 'prune_cfg.sparsifier.pattern=2:4'),
    )  # fmt: skip
    assert ended.code == 0, ended.out
    written = {path.name for path in (tmp_path / 'out').iterdir()}
    assert 'vit_pruned.pth' in written and 'vit_structured_pruned.pth' not in written
    report = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert report['achieved']['zeros'] == 0.5 and report['achieved']['params'] == 0
    assert report['asked'] == {'budget': 'weights', 'ratio': 0.5}

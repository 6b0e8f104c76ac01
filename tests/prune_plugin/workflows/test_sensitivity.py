"""What sensitivity is made of: parts, ratios, subsets, the measure, the pictures."""

import csv
import json
from pathlib import Path

import pytest
import torch
import toy
from mmengine.dataset import BaseDataset
from rich.console import Console
from torch import nn

from projects.prune_plugin import build_pruner
from projects.prune_plugin.evaluation.test_set import first_samples
from projects.prune_plugin.structure.unit_group import Cut, UnitGroup
from projects.prune_plugin.workflows.evaluation_cache import cached_results
from projects.prune_plugin.workflows.module_groups import ModuleGroup, module_groups
from projects.prune_plugin.workflows.reports import (
    plot_sensitivity,
    print_sensitivity,
    sensitivity,
    write_sensitivity,
)
from projects.prune_plugin.workflows.reports.heatmap import lines_of, signed
from projects.prune_plugin.workflows.run_fingerprint import RunFingerprint
from projects.prune_plugin.workflows.sensitivity import NOTES, worsening

RATIOS = (0.1, 0.3, 0.5)


def group(name: str, size: int, kind: str = 'mlp', owner: str = '', least: int = 0) -> UnitGroup:
    cuts = (Cut('weight', None),) if kind == 'layer' else ()
    return UnitGroup(name, kind, size, cuts, owner, least=least)


def part(*sizes: int, floors=None) -> ModuleGroup:
    """A part whose units are scored in descending order: the last ones go first."""
    groups = tuple(group(f'g{i}', size) for i, size in enumerate(sizes))
    scores = tuple(torch.arange(size, 0, -1).double() for size in sizes)
    return ModuleGroup('module', 'mlp', groups, scores, tuple(floors or [0] * len(sizes)))


@pytest.mark.parametrize(
    ('size', 'ratio', 'floor', 'round_to', 'kept'),
    [
        (10, 0.3, 0, 1, 7),
        (10, 0.5, 0, 1, 5),
        (8, 0.1, 0, 1, 7),  # 0.8 of a unit
        (4, 0.1, 0, 1, 4),  # 0.4 of one: none
        (5, 0.1, 0, 1, 4),  # half a unit counts as one
        (5, 0.3, 0, 1, 3),
        (1, 0.3, 0, 1, 1),
        (1, 0.5, 0, 1, 0),  # a whole layer
        (1, 0.5, 1, 1, 1),
        (10, 0.9, 4, 1, 4),
        (20, 0.3, 0, 8, 16),
        (20, 0.1, 0, 16, 20),  # 18 of 20, up to a multiple of 16: more than there are
        (12, 0.5, 0, 8, 8),
    ],
)
def test_the_least_important_share_goes(size, ratio, floor, round_to, kept):
    state = part(size, floors=[floor]).state(ratio, round_to)
    assert state.kept['g0'].tolist() == list(range(kept))


def test_groups_of_one_part_lose_their_shares_together():
    state = part(10, 4).state(0.5)
    assert [len(state.kept[name]) for name in ('g0', 'g1')] == [5, 2]
    assert part(10, 4).units == 14


class Branches(nn.Module):
    """Modules in an order that differs from that of the groups."""

    def __init__(self):
        super().__init__()
        self.second, self.first = nn.Linear(2, 2), nn.Linear(2, 2)


def test_groups_of_one_owner_and_kind_are_one_part():
    groups = [
        group('first.a', 4, 'mlp', 'first'),
        group('second.a', 4, 'mlp', 'second'),
        group('first.b', 6, 'mlp', 'first', least=2),
        group('first.c', 3, 'attention', 'first'),
    ]
    scores = [torch.rand(g.size, dtype=torch.float64) for g in groups]
    parts = module_groups(Branches(), groups, scores, build_pruner({}))
    assert [(p.module, p.kind) for p in parts] == [
        ('second', 'mlp'),
        ('first', 'mlp'),
        ('first', 'attention'),
    ]
    assert [g.name for g in parts[1].groups] == ['first.a', 'first.b']
    assert parts[1].floors == (1, 2)
    assert parts[1].scores[1] is scores[2]


@pytest.mark.parametrize(('min_keep', 'floors'), [(1, (0, 0, 0)), (3, (1, 1, 1))])
def test_any_one_layer_may_go_while_enough_others_stay(min_keep, floors):
    layers = [group(f'layers.{i}', 1, 'layer', f'layers.{i}') for i in range(3)]
    scores = [torch.ones(1).double() for _ in layers]
    parts = module_groups(nn.Module(), layers, scores, build_pruner(dict(min_keep=min_keep)))
    assert tuple(p.floors[0] for p in parts) == floors


@pytest.mark.parametrize(
    ('dense', 'value', 'better', 'expected'),
    [
        (0.8, 0.4, 'max', 0.5),
        (0.4, 0.8, 'max', -0.5),
        (2.0, 4.0, 'min', 0.5),
        (4.0, 2.0, 'min', -0.5),
        (2.0, 2e9, 'min', 1.0),
        (0.8, 0.0, 'max', 1.0),
        (0.0, 0.3, 'min', 1.0),
        (0.0, 0.0, 'max', 0.0),
        (0.5, -1.0, 'max', 1.0),
    ],
)
def test_worsening(dense, value, better, expected):
    assert worsening(dense, value, better) == pytest.approx(expected)


class Numbers(BaseDataset):
    METAINFO = dict(classes=('a', 'b'))

    def load_data_list(self):
        return [dict(number=i) for i in range(6)]


@pytest.mark.parametrize('serialize', [True, False])
def test_first_samples_of_mmengine_data_sets(serialize):
    data = Numbers(ann_file='', serialize_data=serialize)
    some = first_samples(dict(dataset=data), 4)
    assert isinstance(some, Numbers)
    assert [some[i]['number'] for i in range(len(some))] == [0, 1, 2, 3]
    assert some.metainfo['classes'] == ('a', 'b')
    assert len(first_samples(dict(dataset=Numbers(ann_file='')), 60)) == 6


def test_first_samples_of_other_data_sets():
    data = toy.ToyData()
    data.metainfo = dict(classes=('a',))
    some = first_samples(dict(dataset=data), 5)
    assert len(some) == 5 and some.metainfo == dict(classes=('a',))
    assert all(torch.equal(some[i]['inputs'], data.inputs[i]) for i in range(5))
    assert len(first_samples(dict(dataset=dict(type='ToyData')), 7)) == 7


@pytest.mark.parametrize('text', [None, '', '[]', '{"settings": {"a": 1}}', '{"settings": 3}'])
def test_what_is_no_earlier_report_is_no_help(text, tmp_path):
    path = tmp_path / 'sensitivity.json'
    if text is not None:
        path.write_text(text)
    assert cached_results(path, RunFingerprint({'a': 1})) == {}


def make_report(modules: int, metrics: int, ratios=RATIOS) -> dict:
    """A report in which module i loses ``i * ratio`` per cent of every metric; the last is whole."""
    names = [f'task/m{i}' for i in range(metrics)]
    dense = {name: 50.0 for name in names}
    rows = []
    for i in range(modules):
        for ratio in ratios:
            whole = i == modules - 1
            change = {} if whole else {name: -0.5 * i * ratio for name in names}
            rows.append(
                dict(
                    module=f'head.layers.{i}.ffn' if i % 5 else f'backbone{i}',
                    kind='mlp', layer_idx=i, ratio=ratio, units=10,
                    kept=10 if whole else round(10 - 10 * ratio), params_removed=None if whole else 7,
                    flops_removed=None, metrics=None if whole else
                    {name: dense[name] + change[name] for name in names},
                    change=None if whole else change, worsening=None if whole else
                    {name: i * ratio / 100 for name in names},
                    sensitivity=None if whole else i * ratio / 100, digest=f'{i} {ratio}',
                )
            )  # fmt: skip
    return dict(
        asked=dict(ratios=list(ratios), samples=None, criterion='L1'),
        dense=dict(params=100, flops=None, metrics=dense), headline=dict.fromkeys(names, 'max'),
        left_out=[], rows=rows, notes=dict(NOTES),
    )  # fmt: skip


def test_the_ranking_goes_by_the_largest_ratio():
    ranked = sensitivity.ranking(make_report(30, 2))
    assert [row['layer_idx'] for row in ranked] == list(range(28, -1, -1))
    assert {row['ratio'] for row in ranked} == {0.5}


def test_the_terminal_shows_both_ends(capsys):
    console = Console(width=140, record=True)
    print_sensitivity(make_report(30, 2), console)
    text = console.export_text()
    shown = [line.split('│')[1:3] for line in text.splitlines() if line.startswith('│')]
    places = [int(place) for place, _ in shown if place.strip()]
    assert places == [*range(1, 11), *range(20, 30)]
    assert shown[0][1].strip() == 'head.layers.28.ffn' and '... 9 more' in text
    assert 'task/m0 50 -> 43' in text
    assert 'nothing can go at these ratios: head.layers.29.ffn (mlp)' in text.replace('\n', ' ')


def test_tables_hold_what_is_there(tmp_path):
    report = make_report(3, 2)
    write_sensitivity(report, tmp_path)
    with (tmp_path / 'sensitivity.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*sensitivity.COLUMNS, 'task/m0', 'task/m1']
    assert [float(row['task/m1'] or 'nan') for row in rows[3:6]] == pytest.approx(
        [50 - 0.05, 50 - 0.15, 50 - 0.25]
    )
    assert rows[-1]['task/m0'] == rows[-1]['params_removed'] == ''
    assert json.loads((tmp_path / 'sensitivity.json').read_text()) == report


def test_the_columns_are_documented():
    docs = Path(__file__).resolve().parents[3] / 'docs' / 'tools.md'
    assert ','.join(sensitivity.COLUMNS) in docs.read_text(encoding='utf-8')


def test_lines_of_the_picture_stand_in_blocks():
    lines = lines_of(make_report(7, 1)['rows'])
    assert [line.label for line in lines] == [
        'backbone0  mlp', 'head.layers', '1.ffn  mlp', '2.ffn  mlp', '3.ffn  mlp', '4.ffn  mlp',
        'backbone5  mlp', 'head.layers.6.ffn  mlp',
    ]  # fmt: skip
    assert [len(line.cells) for line in lines] == [3, 0, 3, 3, 3, 3, 3, 3]


@pytest.mark.parametrize(('modules', 'metrics', 'ratios'), [(10, 2, RATIOS), (80, 7, (0.5,))])
def test_the_heat_map_is_red_where_it_is_worse(modules, metrics, ratios, tmp_path):
    pytest.importorskip('matplotlib')
    from matplotlib.image import imread

    report = make_report(modules, metrics, ratios)
    report['headline']['task/m1'] = 'min'
    picture = imread(plot_sensitivity(report, tmp_path / 'map.png'))[..., :3]
    height, width = picture.shape[0] / 130, picture.shape[1] / 130
    assert height > 0.2 * modules and width > 1.4 * metrics
    red, blue = picture[..., 0] - picture[..., 2], picture[..., 2] - picture[..., 0]
    body = slice(0, picture.shape[0] - 130)  # the colour bars below hold all colours
    columns_red = (red[body] > 0.3).any(0).nonzero()[0]
    columns_blue = (blue[body] > 0.3).any(0).nonzero()[0]
    # the second panel's metric is better when lower, so there the fall is blue
    assert len(columns_red) and len(columns_blue)
    assert columns_red.min() < columns_blue.min()


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (0, '0'),
        (-0.0214, '-0.021'),
        (3.07, '+3.07'),
        (-12.3, '-12'),
        (2e-5, '+2e-5'),
        (1e6, '+1e+06'),
    ],
)
def test_changes_in_cells_are_short(change, text):
    assert signed(change) == text


def test_without_test_data_points_are_known_by_their_size(tmp_path):
    """As those of a curve on a model without data: they have no metrics."""
    key = RunFingerprint({'config': 'a'})
    row = dict(digest='d', metrics=None, params=5)
    unmade = dict(digest='e', metrics=None, params=None)
    report = dict(settings=key.parts, dense=dict(params=9), rows=[row, unmade])
    (tmp_path / 'curve.json').write_text(json.dumps(report))
    assert set(cached_results(tmp_path / 'curve.json', key)) == {''}
    assert set(cached_results(tmp_path / 'curve.json', key, 'params')) == {'', 'd'}

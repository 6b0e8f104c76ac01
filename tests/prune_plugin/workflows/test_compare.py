"""Comparing checkpoints: names, counts against other definitions, and how the figures are shown."""

import copy
import csv
import io
import json
import re

import pytest
import torch
import toy
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from rich.console import Console
from torch import nn

from projects.prune_plugin import build_pruner, slim
from projects.prune_plugin.checkpoints.checkpoint_file import load_file
from projects.prune_plugin.checkpoints.packed_masks import pack_masks
from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.evaluation import profiling
from projects.prune_plugin.evaluation.settings import ProfileSettings
from projects.prune_plugin.workflows import compare as comparison
from projects.prune_plugin.workflows.compare import (
    compare,
    path_labels,
    profile_settings,
    row_labels,
)
from projects.prune_plugin.workflows.reports import comparison as shown
from projects.prune_plugin.workflows.reports import print_comparison, write_comparison

QUICK = ProfileSettings(batch_size=2, seconds=0.0, input_shape=(toy.FEATURES,))


@METRICS.register_module(force=True)
class ToyFit(BaseMetric):
    """Mean largest logit, its negative, one number and a NaN."""

    default_prefix = 'toy'
    headline = {'peak': 'max', 'dip': 'min', 'gone': 'max'}  # noqa: RUF012

    def process(self, data_batch, data_samples):
        self.results += [float(sample.max()) for sample in data_samples]

    def compute_metrics(self, results):
        peak = sum(results) / len(results)
        return dict(other=1.0, peak=peak, dip=-peak, undefined=float('nan'))


@pytest.fixture
def cfg() -> Config:
    loader = copy.deepcopy(toy.LOADER)
    loader['sampler']['shuffle'] = False
    return Config(
        dict(
            model=dict(toy.MODEL),
            test_dataloader=loader,
            test_evaluator=dict(type='ToyFit'),
            test_cfg=dict(),
        )
    )


@pytest.fixture
def files(tmp_path) -> list[str]:
    """A dense model with optimizer state, one with half of its weights zeroed, and a slim one."""
    model = toy.ToyModel()
    names = [str(tmp_path / f'{stem}.pth') for stem in ('dense', 'masked', 'slim')]
    state = copy.deepcopy(model.state_dict())
    moments = {name: torch.ones_like(w) for name, w in state.items()}
    torch.save(dict(state_dict=state, meta={}, optimizer=dict(state=moments)), names[0])
    masked = copy.deepcopy(state)
    masked['mlp.fc1.weight'][:8] = 0
    masks = pack_masks({'mlp.fc1.weight': masked['mlp.fc1.weight'] != 0})
    torch.save(dict(state_dict=masked, meta={}, masks=masks), names[1])
    pruner = build_pruner(
        dict(units=[dict(type='FFNNeurons')], budget=dict(type='units', ratio=0.25))
    )
    plan = pruner.plan(model)
    meta = dict(prune_state=plan.state.to_dict())
    torch.save(dict(state_dict=slim(model, plan.state).state_dict(), meta=meta), names[2])
    return names


def test_default_labels_are_the_shortest_that_are_distinct():
    assert path_labels(['a/b/latest.pth', 'a/c/latest.pth']) == ['b/latest', 'c/latest']
    assert path_labels(['x/a/b/latest.pth', 'x/c/b/latest.pth']) == ['a/b/latest', 'c/b/latest']
    assert path_labels(['/one.pth', '/a/b/two.pth']) == ['one', 'b/two']
    two = path_labels(['a/m.pth', 'a/m.pt'])
    assert [label.rpartition('/')[2] for label in two] == ['m.pth', 'm.pt']


def test_labels_that_cannot_be_are_refused():
    assert row_labels(['a.pth', 'b.pth'], ['one', 'two']) == ['one', 'two']
    for given, message in (
        (['one'], '--labels has 1 names for 2 checkpoints'),
        (['one', 'two', 'three'], '--labels has 3 names for 2'),
        (['one', 'one'], "--labels names two checkpoints 'one'"),
        (['one', ' '], '--labels holds an empty name'),
    ):
        with pytest.raises(UserError, match=message):
            row_labels(['a.pth', 'b.pth'], given)
    with pytest.raises(UserError, match=r'a\.pth is given twice'):
        row_labels(['a.pth', 'x/../a.pth'])


def test_profile_settings():
    cfg = Config(dict(prune_cfg=dict(profile=dict(batch_size=3, seconds=1.5))))
    assert profile_settings(cfg) == ProfileSettings(batch_size=3, seconds=1.5)
    changed = profile_settings(cfg, batch_size=5, num_threads=2, seconds=None)
    assert changed == ProfileSettings(batch_size=5, num_threads=2, seconds=1.5)
    assert profile_settings(Config(dict())) == ProfileSettings()
    for bad, message in (({'x': 1}, 'prune_cfg.profile.x is not a key'), (3, 'profile is 3')):
        with pytest.raises(UserError, match=message):
            profile_settings(Config(dict(prune_cfg=dict(profile=bad))), batch_size=1)


def test_every_figure_against_another_count(cfg, files, monkeypatch):
    timed = []

    def latency(models, example, seconds, num_threads):
        kwargs = dict(seconds=seconds, num_threads=num_threads)
        timed.append((len(models), example[0][0].shape, kwargs))
        return [8.0, 6.0, 4.0]

    monkeypatch.setattr(profiling, 'model_latency', latency)
    report = compare(cfg, files, QUICK)
    dense, masked, slimmed = report['models']
    assert [m['structure'] for m in report['models']] == ['dense', 'masked', 'slim']
    folder = files[0].split('/')[-2]
    assert [m['label'] for m in report['models']] == [
        f'{folder}/{s}' for s in ('dense', 'masked', 'slim')
    ]
    into, out = toy.FEATURES, toy.CLASSES
    for model, hidden in ((dense, 16), (masked, 16), (slimmed, 12)):
        assert model['params'] == hidden * (into + 1 + out) + out
        assert model['weight_bytes'] == 4 * model['params']
        assert model['flops'] == 2 * hidden * (into + out)
    assert [m['zeros'] for m in report['models']] == [0, 8 * into / (16 * (into + out)), 0]
    assert dense['file_bytes'] > 2 * dense['weight_bytes']  # the moments of one optimizer
    assert [m['latency_ms'] for m in report['models']] == [8, 6, 4]
    assert timed == [(3, (2, into), dict(seconds=0.0, num_threads=1))]  # all in one run
    for model, path in zip(report['models'], files, strict=True):
        saved = torch.load(path, weights_only=True)['state_dict']
        inner = toy.ToyModel(hidden=saved['mlp.fc1.weight'].shape[0]).eval()
        inner.load_state_dict(saved)
        peak = inner(toy.ToyData().inputs).max(1).values.mean().item()
        assert model['metrics'] == pytest.approx(
            {'toy/other': 1, 'toy/peak': peak, 'toy/dip': -peak}
        )
    assert dense['metrics']['toy/peak'] != masked['metrics']['toy/peak']
    assert report['headline'] == {'toy/peak': 'max', 'toy/dip': 'min'}
    assert 'batch 2, 1 thread' in report['notes']['latency_ms']


def test_what_cannot_be_measured_is_none(cfg, files):
    cfg.test_dataloader = None
    report = compare(cfg, files[:1], ProfileSettings())
    (model,) = report['models']
    assert model['flops'] is model['latency_ms'] is model['metrics'] is None
    assert 'skipped' in report['notes']['metrics'] and report['headline'] == {}
    assert compare(cfg, files[:1], QUICK, evaluate=False)['notes']['metrics'] == 'not asked for'
    with pytest.raises(UserError, match='--eval speed is not a metric'):
        compare(cfg, files[:1], QUICK, metrics=['speed'])


def test_all_files_are_read_before_anything_is_evaluated(cfg, files, monkeypatch):
    monkeypatch.setattr(comparison.TestSet, 'evaluate', lambda *_: pytest.fail('evaluated'))
    monkeypatch.setattr(comparison, 'profile', lambda *_: pytest.fail('timed'))
    with pytest.raises(UserError, match='gone.pth does not exist'):
        compare(cfg, [*files, 'gone.pth'], QUICK)


def test_zeros_of_a_model_without_weights():
    assert comparison.zero_share(nn.BatchNorm1d(3)) is None
    assert comparison.zero_share(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))) == 0


def test_numbers_read_well():
    values = (0, 12, 999.96, 9999, 1_201_802, 999_999_999, 2.5e12)
    assert [shown.si(v) for v in values] == [
        '0', '12', '1 k', '9.999 k', '1.202 M', '1 G', '2.5 T',
    ]  # fmt: skip
    assert shown.si(9_643_536, 'B') == '9.644 MB' and shown.si(12, 'B') == '12 B'
    assert shown.change(200, 150, relative=True) == '-25.0 %'
    assert shown.change(0.5, 0.625, relative=False) == '+0.125'
    assert shown.change(3, 3, relative=True) == shown.change(0, 0, relative=False) == '='
    assert shown.change(None, 3, relative=False) == shown.change(3, None, relative=True) == ''
    assert shown.change(0, 3, relative=True) == ''


def test_labels_are_broken_where_they_read_well():
    assert shown.wrapped('pruned_0.3/retrained/latest', 12) == 'pruned_0.3/\nretrained/\nlatest'
    assert shown.wrapped('a' * 30, 12).split('\n') == ['a' * 12, 'a' * 12, 'a' * 6]
    assert shown.wrapped('short', 12) == 'short'
    assert shown.short('a' * 200) == 'a' * 30 + '…' + 'a' * 29 and shown.short('abc') == 'abc'


@pytest.fixture
def report() -> dict:
    def model(i: int) -> dict:
        return dict(
            label=f'model [{i}]', checkpoint=f'{i}.pth', structure=list(shown.MEANINGS)[i % 3],
            params=1000 - 100 * i, zeros=0.1 * i, flops=5_000_000, latency_ms=2.0, file_bytes=3 + i,
            weight_bytes=2 + i, metrics={'a/top': 90.0 - i, 'a/low': 0.0, 'a/more': 1.0},
        )  # fmt: skip

    return dict(
        config='some/config.py', command=['compare.py'], models=[model(i) for i in range(8)],
        headline={'a/top': 'max', 'a/low': 'min'}, environment={},
        notes=dict(flops='two each', latency_ms='median', metrics='skipped: none'),
    )  # fmt: skip


def printed(report: dict, width: int) -> str:
    stream = io.StringIO()
    print_comparison(report, Console(file=stream, width=width))
    return stream.getvalue()


def test_the_table_shows_all_models_at_any_width(report):
    for width in (60, 80, 120, 300):
        text = printed(report, width)
        assert max(map(len, text.splitlines())) <= width
        for i in range(8):
            assert f'model [{i}]' in text
        for part in ('-10.0 %', '70.0 %', 'a/top ↑', 'a/low ↓', 'in compare.csv'):
            assert part in text, (width, part)
        assert re.search(r'89 +-1 ', text)
    assert printed(report, 300).count('parameters') == 1 < printed(report, 80).count('parameters')
    report['models'] = report['models'][:1]
    assert '-10.0 %' not in printed(report, 100)
    for gone in ('flops', 'latency_ms', 'metrics', 'zeros'):
        report['models'][0][gone] = None
    report['headline'] = {}
    assert 'Metrics: skipped: none.' in printed(report, 100)


def test_files(report, tmp_path):
    pytest.importorskip('matplotlib')
    report['models'][1]['metrics'] = {'a/top': 3.0}
    report['models'][2]['metrics'] = None
    written = write_comparison(report, tmp_path)
    assert [path.name for path in written] == ['compare.csv', 'compare.json', 'compare.png']
    assert json.loads(written[1].read_text()) == report
    with open(written[0], newline='') as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*shown.MODEL_COLUMNS, 'a/top', 'a/low', 'a/more']
    assert [row['params'] for row in rows] == [str(1000 - 100 * i) for i in range(8)]
    assert [row['a/top'] for row in rows[:4]] == ['90.0', '3.0', '', '87.0']
    assert rows[1]['a/low'] == '' and rows[0]['a/low'] == '0.0'
    assert written[2].read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize('count', [1, 2, 8])
def test_nothing_overlaps_in_the_picture(report, tmp_path, count, monkeypatch):
    """All texts lie in the picture, and labels do not reach into each other."""
    figure_module = pytest.importorskip('matplotlib.figure')
    agg = pytest.importorskip('matplotlib.backends.backend_agg')
    figures = []
    save = figure_module.Figure.savefig

    def saved(figure, *args, **kwargs):
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(figure_module.Figure, 'savefig', saved)
    report['models'] = report['models'][:count]
    for i, model in enumerate(report['models']):
        model['label'] = f'work_dirs/experiment_{i}/retrained/30 % knapsack, ' + 'x' * 60
    report['models'][-1]['metrics'] = {'a/top': -4.0}
    report['headline'] |= {'a/a_long_name_of_a_metric_that_needs_two_lines': 'max'}
    shown.plot_comparison(report, tmp_path / 'a.png')
    (figure,) = figures
    visible = [axis for axis in figure.axes if axis.get_visible()]
    assert len(visible) == 4 + 3
    titles = [axis.get_title(loc='left') for axis in visible]
    assert titles[4] == 'a/top\n↑ higher is better' and titles[0] == 'parameters\n↓ lower is better'
    assert [text.get_text() for text in visible[0].texts][1:] == [
        f'{1000 - 100 * i} ({100 - 10 * i} %)' if i else '1 k' for i in range(1, count)
    ]
    canvas = agg.FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    whole = figure.bbox
    for axis in visible:
        names = [t for t in axis.get_yticklabels() if t.get_visible() and t.get_text()]
        boxes = [t.get_window_extent(renderer) for t in (*axis.texts, axis._left_title, *names)]
        assert all(0 <= b.x0 and b.x1 <= whole.width and b.y1 <= whole.height for b in boxes)
        columns = [[t.get_window_extent(renderer) for t in names], boxes[: len(axis.texts)]]
        for column in columns:
            for upper, lower in zip(column, column[1:], strict=False):
                assert upper.y0 >= lower.y1 - 1
    rows = {}
    for axis in visible:
        rows.setdefault(round(axis.get_position().y0, 3), []).append(axis)
    for row in rows.values():
        for left, right in zip(row, row[1:], strict=False):
            reach = max(t.get_window_extent(renderer).x1 for t in left.texts)
            assert reach <= right.get_window_extent(renderer).x0


def test_tied_weights_count_once(tmp_path):
    from projects.prune_plugin.checkpoints.model_loading import Loaded
    from projects.prune_plugin.workflows.compare import describe

    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    model[1].weight = model[0].weight
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'a.pth')
    content = load_file(tmp_path / 'a.pth')
    told = describe(Loaded(model, content, None), tmp_path / 'a.pth')
    assert told['weight_bytes'] == 4 * (64 + 8 + 8)

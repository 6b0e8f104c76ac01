"""Searches on a toy model, against a scan over every number of units and of weights by hand."""

import csv
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import toy
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS, MODELS
from rich.console import Console

from projects.prune_plugin import StructuredPruner, UserError
from projects.prune_plugin.calibration.data import CalibrationData
from projects.prune_plugin.checkpoints.checkpoint_file import load_file
from projects.prune_plugin.methods.sparsifiers.wanda import Wanda
from projects.prune_plugin.workflows.options import PruneOptions
from projects.prune_plugin.workflows.prune import prune as prune_model
from projects.prune_plugin.workflows.prune import pruner_from_config, search_ratio
from projects.prune_plugin.workflows.reports import print_search

HIDDEN = 32
NAME, OTHER = 'toy/distance', 'toy/agreement'


def dense_model():
    """Every neuron adds something above 0 to every logit: the more go, the further off they are."""
    torch.manual_seed(5)
    model = MODELS.build(dict(toy.MODEL, hidden=HIDDEN)).eval()
    with torch.no_grad():
        model.mlp.fc1.bias += 6
        model.mlp.fc2.weight.abs_().mul_(torch.logspace(-2, 0.5, HIDDEN)[torch.randperm(HIDDEN)])
    return model


def figures(logits: torch.Tensor) -> tuple[float, float]:
    """How far from the dense model's logits, and how often with its answer, in percent."""
    with torch.no_grad():
        dense = dense_model()(toy.ToyData().inputs)
    same = (logits.argmax(1) == dense.argmax(1)).double().mean()
    distance = float((logits - dense).double().square().mean())
    return round(distance, 8), 100 * float(same)  # equal but for rounding is equal


@METRICS.register_module(force=True)
class ToyDistance(BaseMetric):
    default_prefix = 'toy'
    headline = {'agreement': 'max'}  # noqa: RUF012

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        distance, agreement = figures(torch.stack(results))
        return dict(distance=distance, agreement=agreement, nothing=float('nan'))


def config(prune_cfg: dict, **more) -> Config:
    loader = {**toy.LOADER, 'sampler': dict(type='DefaultSampler', shuffle=False)}
    return Config(
        dict(
            model=dict(toy.MODEL, hidden=HIDDEN),
            prune_cfg=dict(profile=dict(input_shape=(toy.FEATURES,), seconds=0.01), **prune_cfg),
            **{
                'train_dataloader': dict(toy.LOADER),
                'test_dataloader': loader,
                'test_evaluator': dict(type='ToyDistance'),
                **more,
            },
        )
    )


def goal(max_drop: float, metric: str = 'distance', **more) -> dict:
    return dict(type='metric', metric=metric, max_drop=max_drop, **more)


DISTANCE = dict(lower_is_better=True)


@pytest.fixture
def prune(tmp_path):
    """``prune(prune_cfg)``: the report of a run, whose files are in ``prune.folder``."""
    weights = tmp_path / 'dense.pth'
    torch.save(dict(state_dict=dense_model().state_dict(), meta={}), weights)

    def run(prune_cfg: dict, dry_run: bool = False, **more) -> dict:
        cfg = config(prune_cfg, **more)
        run.folder.mkdir(exist_ok=True)
        options = PruneOptions(str(weights), run.folder, dry_run=dry_run)
        return prune_model(cfg, pruner_from_config(cfg), options).report.to_dict()

    run.folder, run.weights = tmp_path / 'out', weights
    return run


def without_neurons(count: int) -> float:
    """The distance without the ``count`` neurons whose weights have the smallest sum."""
    mlp, x = dense_model().mlp, toy.ToyData().inputs
    kept = (mlp.fc1.weight.abs().sum(1) + mlp.fc2.weight.abs().sum(0)).argsort()[count:]
    with torch.no_grad():
        hidden = F.gelu(x @ mlp.fc1.weight[kept].T + mlp.fc1.bias[kept])
        return figures(hidden @ mlp.fc2.weight[:, kept].T + mlp.fc2.bias)[0]


def test_a_search_alone_finds_the_same_and_writes_no_model(prune):
    limit = (without_neurons(17) + without_neurons(18)) / 2
    budget = {**goal(limit, of='units', low=0.02, high=0.99, tolerance=0.005), **DISTANCE}
    pruned = prune(dict(budget=budget, weight_level=False))
    folder = prune.folder.parent / 'search'
    folder.mkdir()
    cfg = config(dict(budget=budget, weight_level=False))
    options = PruneOptions(str(prune.weights), folder)
    searched = search_ratio(cfg, pruner_from_config(cfg), options)
    assert searched.ratio == pruned['search']['ratio']
    assert {path.suffix for path in folder.iterdir()} <= {'.csv', '.json', '.png'}
    cfg = config(dict(budget=dict(type='units', ratio=0.5)))
    with pytest.raises(UserError, match="type is 'units', whose ratio is given"):
        search_ratio(cfg, pruner_from_config(cfg), options)


def test_as_many_neurons_go_as_a_scan_over_all_numbers_says(prune):
    scan = [without_neurons(count) for count in range(HIDDEN)]
    assert all(a < b for a, b in zip(scan, scan[1:], strict=False)), 'else there is no one answer'
    for best in (4, 17, 30):
        limit = (scan[best] + scan[best + 1]) / 2
        budget = {**goal(limit, of='units', low=0.02, high=0.99, tolerance=0.005), **DISTANCE}
        report = prune(dict(budget=budget, weight_level=False))
        (group,) = report['groups']
        assert group['size'] - group['kept'] == best
        search = report['search']
        assert (search['metric'], search['better']) == (NAME, 'min')
        assert search['limit'] == pytest.approx(limit)
        taken = next(row for row in search['rows'] if row['ratio'] == search['ratio'])
        assert taken['holds'] and taken['value'] == pytest.approx(scan[best], rel=1e-4)
        assert report['pruned']['metrics'][NAME] == taken['value']
        for row in search['rows']:
            gone = round(row['removed'] * HIDDEN)
            assert row['value'] == pytest.approx(scan[gone], rel=1e-4)
            assert row['holds'] == (gone <= best)
            assert row['drop'] == row['value'] - search['dense']['metrics'][NAME]


def test_weights_by_magnitude_as_a_scan_says(prune):
    def without(ratio: float) -> float:
        model = dense_model()
        with torch.no_grad():
            weights = model.mlp.fc2.weight.view(-1)
            weights[weights.argsort()[: round(ratio * len(weights))]] = 0
            return figures(model(toy.ToyData().inputs))[0]

    grid = [i / 200 for i in range(10, 191)]
    scan = [without(ratio) for ratio in grid]
    assert scan == sorted(scan), 'else there is no one answer'
    limit = scan[100] * 1.0001
    budget = {**goal(limit, tolerance=0.002), **DISTANCE}
    report = prune(dict(type='WeightPruner', include=['mlp.fc2'], budget=budget))
    best = max(ratio for ratio, value in zip(grid, scan, strict=True) if value <= limit)
    assert report['asked']['budget'] == 'weights'
    assert best - 0.002 <= report['asked']['ratio'] <= best + 0.005
    assert without(report['asked']['ratio']) <= limit * (1 + 1e-5)
    assert report['achieved']['zeros'] == pytest.approx(report['asked']['ratio'], abs=0.005)
    masked = load_file(prune.folder / 'model_pruned.pth')['state_dict']
    model = dense_model()
    model.load_state_dict(masked)
    with torch.no_grad():
        value = figures(model(toy.ToyData().inputs))[0]
    assert value == pytest.approx(report['pruned']['metrics'][NAME], rel=1e-4)


def test_a_metric_that_goes_up_and_down_gives_a_ratio_that_holds(prune):
    report = prune(dict(budget=goal(10.0, 'agreement', of='units'), weight_level=False))
    rows = {row['ratio']: row for row in report['search']['rows']}
    assert report['search']['better'] == 'max'  # declared, though its name doesn't say so
    assert rows[report['search']['ratio']]['value'] >= 90 - 1e-4
    assert rows[report['search']['too_much']]['value'] < 90
    assert 0 < report['search']['too_much'] - report['search']['ratio'] <= 0.01
    assert report['headline'] == {OTHER: 'max'}


@pytest.fixture
def counted(monkeypatch):
    """How often scores, costs, data and metrics are asked for."""
    counts = dict.fromkeys(('scores', 'cost', 'data', 'looks', 'metrics'), 0)

    def count(cls, method: str, name: str):
        real = getattr(cls, method)

        def counting(self, *args, **kwargs):
            counts[name] += 1
            return real(self, *args, **kwargs)

        monkeypatch.setattr(cls, method, counting)

    count(StructuredPruner, 'scores', 'scores')
    count(StructuredPruner, 'cost', 'cost')
    count(CalibrationData, '__init__', 'data')
    count(Wanda, 'finish', 'looks')
    count(ToyDistance, 'compute_metrics', 'metrics')
    return counts


def test_scores_and_costs_are_found_once_and_nothing_is_evaluated_twice(prune, counted):
    cfg = dict(criterion=dict(type='Taylor'), budget={**goal(0.5), **DISTANCE}, weight_level=False)
    report = prune(cfg)
    trials = len(report['search']['rows'])
    digests = {row['digest'] for row in report['search']['rows']}
    assert trials >= 5
    assert counted == dict(scores=1, cost=1, data=1, looks=0, metrics=1 + len(digests))
    again = prune(cfg)
    assert counted['metrics'] == 1 + len(digests), 'the trials are in search.json'
    assert again['search'] == report['search'] and again['pruned'] == {
        **report['pruned'], 'latency_ms': again['pruned']['latency_ms'],
    }  # fmt: skip


def test_wanda_looks_at_the_layers_once(prune, counted):
    budget = {**goal(0.5), **DISTANCE}
    report = prune(dict(type='WeightPruner', sparsifier=dict(type='Wanda'), budget=budget))
    assert len(report['search']['rows']) >= 5
    assert counted['looks'] == 2  # layers
    assert counted['data'] == 1
    ratio = report['asked']['ratio']
    alone = dict(type='WeightPruner', sparsifier=dict(type='Wanda'), budget=dict(ratio=ratio))
    assert prune(alone)['pruned']['metrics'] == report['pruned']['metrics']


def test_a_killed_search_goes_on_where_it_was(prune, counted, monkeypatch):
    whole = dict(budget={**goal(0.5, of='units'), **DISTANCE}, weight_level=False)
    expected = prune(whole)['search']
    (prune.folder / 'search.json').unlink()
    real = ToyDistance.compute_metrics

    def breaking(self, results):
        if counted['metrics'] == 3:
            raise KeyboardInterrupt
        return real(self, results)

    counted['metrics'] = 0
    monkeypatch.setattr(ToyDistance, 'compute_metrics', breaking)
    with pytest.raises(KeyboardInterrupt):
        prune(whole)
    left = json.loads((prune.folder / 'search.json').read_text())
    assert len(left['rows']) == 2 and left['ratio'] is None
    monkeypatch.setattr(ToyDistance, 'compute_metrics', real)
    assert prune(whole)['search'] == expected
    evaluated = len({row['digest'] for row in expected['rows']})
    assert counted['metrics'] == 1 + evaluated
    prune({**whole, 'calibration': dict(seed=3)})  # other settings: nothing is known
    assert counted['metrics'] > 1 + evaluated


def test_files_say_what_the_report_says(prune):
    pytest.importorskip('matplotlib')
    report = prune(dict(budget={**goal(0.5), **DISTANCE}, weight_level=False))
    search = report['search']
    with (prune.folder / 'search.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        'trial', 'ratio', 'removed', 'params', 'flops', 'value', 'drop', 'holds', NAME, OTHER,
    ]  # fmt: skip
    assert [float(row['ratio']) for row in rows] == [row['ratio'] for row in search['rows']]
    for row in rows:
        assert float(row[NAME]) == float(row['value'])
        assert row['holds'] == str(float(row['value']) <= search['limit'])
    assert (prune.folder / 'search.png').read_bytes()[:4] == b'\x89PNG'
    page = (prune.folder / 'report.html').read_text()
    assert 'Search' in page and f'{search["limit"]:.6g}' in page and 'too much' in page
    text = (Path(__file__).parents[3] / 'docs/tools.md').read_text(encoding='utf-8')
    text = text.partition('### Search')[2].partition('## tools/train.py')[0]
    assert not [key for key in search if f'`{key}`' not in text], 'say what it is in tools.md'
    console = Console(width=120, record=True)
    print_search(search, console)
    shown = console.export_text()
    assert 'taken' in shown and f'{search["ratio"]:.4g} of params removed holds' in shown


def test_a_dry_run_searches_and_writes_nothing(prune):
    report = prune(dict(budget={**goal(0.5), **DISTANCE}), dry_run=True)
    assert report['search']['ratio'] == report['asked']['ratio']
    assert not list(prune.folder.iterdir())


def test_trials_on_a_part_are_held_against_the_whole(prune, monkeypatch):
    seen = []

    def noted(self, results):
        seen.append(len(results))
        dense = dense_model()(toy.ToyData().inputs[: len(results)])
        distance = float((torch.stack(results) - dense).double().square().mean())
        return dict(distance=distance * (1 if len(results) < toy.SAMPLES else 100))

    monkeypatch.setattr(ToyDistance, 'compute_metrics', noted)
    report = prune(dict(budget={**goal(0.5, num_samples=8), **DISTANCE}, weight_level=False))
    assert seen == [8] * (len(seen) - 2) + [toy.SAMPLES] * 2
    after = report['search']['on_test_data']
    assert after['pruned'] == report['pruned']['metrics'][NAME]
    assert after['drop'] == after['pruned'] - after['dense'] > 0.5
    assert after['holds'] is False


def test_the_validation_data_may_be_taken(prune):
    report = prune(
        dict(budget={**goal(0.5, split='val'), **DISTANCE}, weight_level=False),
        val_dataloader=config({}).test_dataloader,
        val_evaluator=dict(type='ToyDistance', prefix='val'),
    )
    assert report['search']['metric'] == 'val/distance'
    assert report['headline'] == {OTHER: 'max'}
    assert 'on_test_data' not in report['search']


def test_what_no_ratio_holds_is_an_error_that_leaves_the_trials(prune):
    budget = {**goal(0.0, low=0.3, of='units'), **DISTANCE}
    with pytest.raises(UserError) as refused:
        prune(dict(budget=budget))
    said = str(refused.value)
    assert said.startswith('prune_cfg.budget.max_drop is 0, which no ratio keeps down to low=0.3')
    assert f'ratio 0.3 ({10 / 32:.4g} of units removed) gives {NAME} ' in said
    assert {path.name for path in prune.folder.iterdir()} <= {
        'search.csv', 'search.json', 'search.png',
    }  # fmt: skip
    left = json.loads((prune.folder / 'search.json').read_text())
    assert left['ratio'] is None and not any(row['holds'] for row in left['rows'])


def test_the_floors_end_the_search(prune):
    budget = {**goal(1e9, of='units'), **DISTANCE}
    report = prune(dict(budget=budget, min_keep=8, weight_level=False))
    assert report['groups'][0]['kept'] == 8
    assert report['search']['high'] == pytest.approx(0.75)
    assert report['search']['too_much'] is None
    with pytest.raises(
        UserError, match=r'budget.low is out of reach: .* at most 0.75 of mlp units'
    ):
        prune(dict(budget={**budget, 'low': 0.8}, min_keep=8))


@pytest.mark.parametrize(
    ('budget', 'more', 'message'),
    [
        (goal(1.0, 'top1'), {}, "budget.metric is 'top1', but .*; valid are toy/distance, toy/agr"),
        (goal(1.0, 'nothing'), {}, "budget.metric is 'nothing', but the evaluation has no such"),
        (goal(0.1, relative=True), {}, 'relative: toy/distance of the dense model is 0'),
        (goal(1.0), dict(test_evaluator=None), 'the config has no test_dataloader and test_eval'),
        (goal(1.0, split='val'), {}, 'the config has no val_dataloader and val_evaluator'),
    ],
)
def test_bad_input(prune, budget, more, message):
    with pytest.raises(UserError, match=message):
        prune(dict(budget=budget), **more)
    assert not list(prune.folder.glob('*.pth')) and not (prune.folder / 'report.json').exists()

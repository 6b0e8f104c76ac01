"""The code of docs/extending.md works: each method against its own definition, and from a config."""

import csv
import io
import json
import sys

import pytest
import torch
import toy
from mmengine.config import Config
from rich.console import Console
from test_docs import DOCS, REGISTRIES, snippets
from torch import nn

from projects.prune_plugin import CRITERIA, UNITS, PruneOptions, build_pruner, prune, slim
from projects.prune_plugin.workflows.prune import pruner_from_config
from projects.prune_plugin.workflows.reports import print_report

CONFIG, *CODE = snippets(DOCS / 'extending.md')


@pytest.fixture
def registries(monkeypatch):
    """Whatever a snippet registers is gone after the test."""
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, '_module_dict', dict(registry.module_dict))
    for finder in UNITS.module_dict.values():
        monkeypatch.setattr(finder, 'layouts', dict(finder.layouts))
    yield
    monkeypatch.undo()
    assert 'RootMagnitude' not in CRITERIA.module_dict


@pytest.fixture
def methods(registries) -> dict:
    """The names that the snippets define."""
    names: dict = {'__name__': 'snippet'}
    for number, text in enumerate(CODE):
        exec(compile(text, f'extending.md, snippet {number}', 'exec'), names)
    return names


class LowRankLinear(nn.Module):
    """What the page's finder is for."""

    def __init__(self, width: int, rank: int):
        super().__init__()
        self.rank = rank
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, width)

    def forward(self, x):
        """The product."""
        return self.up(self.down(x))


def vision_transformer():
    models = pytest.importorskip('torchvision.models.vision_transformer')
    model = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64
    ).eval()
    torch.nn.init.normal_(model.heads.head.weight)  # zeros, otherwise
    return model


def test_criterion_and_layout(methods):
    model = vision_transformer()
    cfg = dict(
        units=[dict(type='FFNNeurons')],
        criterion=dict(type='RootMagnitude'),
        budget=dict(type='units', ratio=0.5),
    )
    plan = build_pruner(cfg).plan(model)
    assert [(group.kind, group.size) for group in plan.groups] == [('mlp', 64)] * 2
    assert sum(map(len, plan.state.kept.values())) == 64
    first = model.encoder.layers[0].mlp
    expected = first[0].weight.abs().sqrt().sum(1) + first[3].weight.abs().sqrt().sum(0)
    assert torch.allclose(plan.importance[0].float(), expected)
    image = torch.full((2, 3, 32, 32), 0.5)
    with torch.no_grad():
        assert methods['largest_difference'](model, cfg, image) < 1e-5 * model(image).abs().max()


@pytest.mark.parametrize('round_to, kept', [(1, [64, 1]), (8, [56, 8])])
def test_allocator(methods, round_to, kept):
    """Of the MLPs' parameters so much has to go that the last group isn't quite enough, rounded to 8."""
    model = vision_transformer()
    total, unit = sum(p.numel() for p in model.parameters()), 2 * 32 + 1
    cfg = dict(
        units=[dict(type='FFNNeurons')],
        allocator=dict(type='DeepestFirst'),
        budget=dict(type='params', ratio=(62.5 * unit) / total),
        round_to=round_to,
    )
    plan = build_pruner(cfg).plan(model)
    assert [len(plan.state.kept[group.name]) for group in plan.groups] == kept


def flash_bytes(model: nn.Module) -> int:
    """One byte for each weight of a matrix or convolution, four for anything else."""
    return sum(p.numel() * (1 if p.dim() > 1 else 4) for p in model.parameters())


def test_budget(methods):
    """Its cost is what the slim model takes."""
    model = vision_transformer()
    plan = build_pruner(dict(budget=dict(type='flash', ratio=0.2))).plan(model)
    dense, left = flash_bytes(model), flash_bytes(slim(model, plan.state))
    assert plan.result.dense == dense and plan.result.pruned == left
    assert 0.2 <= plan.result.achieved == 1 - left / dense < 0.21


def test_a_budgets_result_shows_everywhere(methods, tmp_path):
    """In the terminal, as CSV, as JSON and on the page, without a word about it anywhere else."""
    cfg = Config(
        dict(
            model=dict(type='ToyModel', hidden=40),
            prune_cfg=dict(
                budget=dict(type='flash', ratio=0.4),
                profile=dict(input_shape=(toy.FEATURES,), seconds=0.01),
            ),
        )
    )
    outcome = prune(cfg, pruner_from_config(cfg, 0.5), PruneOptions(None, tmp_path))
    report = json.loads((tmp_path / 'report.json').read_text())
    (group,) = report['groups']
    dense, left = (
        flash_bytes(toy.ToyModel(hidden=units)) for units in (group['size'], group['kept'])
    )
    removed, shown = 1 - left / dense, f'{100 * (1 - left / dense):.2f} %'
    assert report['asked'] == {'budget': 'flash', 'ratio': 0.5}
    assert report['achieved']['flash'] == pytest.approx(removed) and 0.5 <= removed < 0.55
    assert report['budget'] == dict(
        quantity='flash', asked=0.5, achieved=pytest.approx(removed), dense=dense, pruned=left,
        unit='B',
    )  # fmt: skip
    assert report['prune_cfg']['budget'] == {'type': 'flash', 'ratio': 0.5}
    state = torch.load(outcome.structured, weights_only=True)['meta']['prune_state']
    assert state['achieved'] == report['achieved']
    with open(tmp_path / 'summary.csv', newline='') as file:
        row = next(row for row in csv.DictReader(file) if row['quantity'] == 'flash')
    assert (row['unit'], row['asked'], row['dense'], row['pruned']) == (
        'B', '0.5', str(dense), str(left)
    )  # fmt: skip
    assert float(row['achieved']) == pytest.approx(removed)
    page = (tmp_path / 'report.html').read_text()
    assert f'Asked: 0.5 of flash removed; achieved: {shown} of flash' in page
    stream = io.StringIO()
    print_report(outcome.report, Console(file=stream, width=100))
    (line,) = (line for line in stream.getvalue().splitlines() if ' flash ' in line and '%' in line)
    for text in (f'{dense:,} B', f'{left:,} B', shown):
        assert text in line and f'>{text}<' in page


def test_sparsifier(methods):
    model = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 4))
    before = model[0].weight.detach().clone()
    cfg = dict(
        type='WeightPruner',
        sparsifier=dict(type='RowMagnitude'),
        budget=dict(type='weights', ratio=0.5),
    )
    build_pruner(cfg).sparsify(model)
    for row, was in zip(model[0].weight, before, strict=True):
        smallest = was.abs().argsort()[:5]
        assert (row == 0).nonzero().flatten().tolist() == sorted(smallest.tolist())
        assert torch.equal(row[row != 0], was[row != 0])


def test_finder(methods):
    model = nn.Sequential(LowRankLinear(8, 6), nn.ReLU(), LowRankLinear(8, 6))
    cfg = dict(units=[dict(type='Ranks')], budget=dict(type='units', ratio=0.5))
    with torch.no_grad():
        assert methods['largest_difference'](model, cfg, torch.randn(3, 8)) < 1e-6
    plan = build_pruner(cfg).plan(model)
    methods['slim'](model, plan.state)
    assert sum(module.rank for module in (model[0], model[2])) == 6
    assert tuple(model[0].down.weight.shape) == (model[0].rank, 8)
    default = nn.Sequential(LowRankLinear(8, 6), nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 8)))
    found = build_pruner(dict(budget=dict(ratio=0.1))).plan(default).groups
    assert [group.kind for group in found] == ['branch']  # not among the default units


def test_methods_are_found_from_a_config(registries, tmp_path, monkeypatch):
    (tmp_path / 'my_methods.py').write_text('\n\n'.join(CODE))
    (tmp_path / 'my_config.py').write_text('model = dict()\n')
    (tmp_path / 'config.py').write_text(CONFIG)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'my_methods', raising=False)
    pruner = pruner_from_config(Config.fromfile(tmp_path / 'config.py'))
    assert type(pruner.criterion).__module__ == 'my_methods'
    assert type(pruner.allocator).__name__ == 'DeepestFirst'
    monkeypatch.delitem(sys.modules, 'my_methods')

"""The code of docs/extending.md works: each method against its own definition, and from a config."""

import sys

import pytest
import torch
from mmengine.config import Config
from test_docs import DOCS, REGISTRIES, snippets
from torch import nn

from projects.prune_plugin import CRITERIA, UNITS, build_pruner
from projects.prune_plugin.workflows.prune import pruner_from_config

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

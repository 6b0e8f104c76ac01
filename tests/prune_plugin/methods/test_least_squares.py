"""Least squares against a plain loop, for every family; and what stays untouched.

Targets are here the layers' own dense outputs; for those of the stream see test_stream_targets.py.
"""

from copy import deepcopy
from dataclasses import replace

import brute_force as brute
import pytest
import refitting
import torch
from cases import BY_NAME, random_state
from refitting import Batches
from test_criteria import samples_for
from torch import nn

from projects.prune_plugin import PruneState, StructuredPruner, UserError, mask, slim
from projects.prune_plugin.calibration.collect import observable
from projects.prune_plugin.calibration.layer_inputs import input_rows, weight_matrix
from projects.prune_plugin.methods.compensation import LeastSquares, least_squares


def data_of(case, number: int = 3) -> Batches:
    """Inputs like the case's own, others in every batch."""
    generator = torch.Generator().manual_seed(6)

    def other(x):
        if x.is_floating_point():
            return torch.randn(x.shape, generator=generator)
        return x[:, torch.randperm(x.shape[1], generator=generator)]

    return Batches(tuple(other(x) for x in case.inputs()) for _ in range(number))


def run(model: nn.Module, batch) -> torch.Tensor:
    model(*batch)
    return torch.zeros(())


def refitted(case, state, data=None, damping: float = 0.1):
    """The compensated model, not yet cut, and the names of what has changed."""
    model = case.dense()
    changed = LeastSquares(damping, dense_targets=0).apply(
        model, state, data_of(case) if data is None else data, run
    )
    return model, changed


# The whole flow, against a plain loop

#: By family: readers in the order they run, and which of their inputs a unit is.
READERS = {
    'vit': ([f'blocks.{i}.{x}' for i in range(3) for x in ('attn.proj', 'mlp.fc2')], 12),
    'llama-gqa': (
        [f'model.layers.{i}.{x}' for i in range(3) for x in ('self_attn.o_proj', 'mlp.down_proj')],
        32,
    ),
    'opt': (
        [f'model.decoder.layers.{i}.{x}' for i in range(2) for x in ('self_attn.out_proj', 'fc2')],
        8,
    ),
    'resnet18-channel': ([f'layer{s}.{b}.conv2' for s in (1, 2, 3, 4) for b in (0, 1)], 1),
}


@pytest.mark.parametrize('name', READERS)
def test_each_reader_sees_what_the_readers_before_it_make(name):
    case, (paths, width) = BY_NAME[name], READERS[name]
    groups = case.groups()
    assert len(groups) == len(paths)
    if 'resnet' in name:  # its wide layers take numpy long
        groups, paths = groups[:4], paths[:4]
    state, data = random_state(groups, 'half'), data_of(case)
    by_reader = {c.name.rpartition('.')[0]: g for g in groups for c in g.cuts if c.side == 'out'}
    assert sorted(by_reader) == sorted(paths)
    gone = {}
    for path in paths:
        group = by_reader[path]
        units = state.removed(group.name).tolist()
        each = width if group.kind == 'attention' else 1
        gone[path] = [u * each + i for u in units for i in range(each)]
    expected, dense = case.dense(), case.dense().state_dict()
    runs = [lambda model, batch=batch: model(*batch) for batch in data.batches]
    refitting.refit_in_order(expected, gone, runs, 0.1)
    found, changed = refitted(case, state, data)
    names = {f'{path}.{part}' for path in paths for part in ('weight', 'bias')} & set(dense)
    assert set(changed) == names and len(changed) == len(names)
    for key, tensor in found.state_dict().items():
        if key in names:
            other = expected.state_dict()[key]
            scale = float(other.abs().max())
            torch.testing.assert_close(tensor, other, rtol=0, atol=5e-3 * scale, msg=key)
            assert not torch.equal(tensor, dense[key]), key
        else:
            assert torch.equal(tensor, dense[key]), key


# Every family

FAMILIES = [
    'vit', 'vit-glu', 'llama-gqa', 'opt', 'neox', 'gemma2', 'torch_encoder', 'torch_decoder',
    'mmcv_decoder', 'cross_attention', 'mmcv_deformable', 'branches', 'branches-batch_norm',
    'mmdet_resnet50', 'fpn', 'fpn-bn-on_lateral',
]  # fmt: skip


class Watched(LeastSquares):
    """Notes how far each reader's output is off, by plain removal and after refitting."""

    def refit_layers(self, model, layers, inputs, kept, shifts):
        modules = {path: model.get_submodule(path) for path in layers}
        rows = torch.cat([input_rows(modules[layers[0]], x) for x in inputs])
        before = {p: (weight_matrix(m).clone(), m.bias) for p, m in modules.items()}
        before = {p: (w, 0 if b is None else b.clone()) for p, (w, b) in before.items()}
        count = super().refit_layers(model, layers, inputs, kept, shifts)
        for path, module in modules.items():
            old, bias = before[path]
            target = rows @ old.T + bias
            new = rows @ weight_matrix(module).T + (0 if module.bias is None else module.bias)
            plain = rows @ (old * kept[path]).T + bias
            self.errors[path] = tuple(float((y - target).norm()) for y in (plain, new))
        assert count == len(rows)
        return count


def errors_of(model, state, data, loss=run) -> dict[str, tuple[float, float]]:
    method = Watched(0.01, dense_targets=0)
    method.errors = {}
    method.apply(model, state, data, loss)
    return method.errors


@pytest.mark.parametrize('name', [*FAMILIES, 'resnet18-coupled'])
def test_every_reader_comes_closer_to_its_dense_output(name):
    case = BY_NAME[name]
    state = case.state('half')
    errors = errors_of(case.dense(), state, data_of(case))
    readers = {c.name.rpartition('.')[0] for g in case.groups() for c in g.cuts if c.side == 'out'}
    assert set(errors) == readers
    for path, (plain, new) in errors.items():
        assert new < plain or plain == 0, path


@pytest.mark.parametrize('level', ['half', 'one', 'none'])
@pytest.mark.parametrize('name', [*FAMILIES, 'branches-layer_norm', 'vit-layers', 'llama-layers'])
def test_masked_and_slim_are_still_the_same(name, level):
    """And both are what the compensated model computes with the units' own weights at zero."""
    case = BY_NAME[name]
    state = case.state(level)
    model, changed = refitted(case, state)
    expected = case.run_masked(mask(deepcopy(model), state), state)
    found = case.run(slim(deepcopy(model), state))
    scale = float(expected.abs().max())
    assert found.shape == expected.shape and bool(found.isfinite().all())
    assert float((found - expected).abs().max()) < 2e-5 * scale
    plain = case.dense().state_dict()
    sliced = {c.name for g in state.reduced for c in g.cuts}
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, plain[key]) or key in {*changed, *sliced}, key
    if name in FAMILIES and level == 'half':
        assert changed


def test_untouched_are_groups_that_lose_nothing():
    case = BY_NAME['llama-gqa']
    groups = case.groups()
    whole = {g.name: torch.arange(g.size) for g in groups}
    kept = {**whole, 'model.layers.1.mlp': torch.arange(5)}
    model, changed = refitted(case, PruneState({g.name: g for g in groups}, kept))
    reader = 'model.layers.1.mlp.down_proj.weight'
    assert changed == [reader]
    for key, tensor in case.dense().state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key]) == (key != reader), key
    nothing = PruneState({g.name: g for g in groups}, whole)
    model, changed = refitted(case, nothing)
    assert changed == []
    for key, tensor in case.dense().state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key]), key


def test_it_brings_the_outputs_closer():
    for name in ('vit', 'llama-gqa', 'mmcv_decoder', 'mmdet_resnet18'):
        case = BY_NAME[name]
        state, data = random_state(case.groups(), 'half'), data_of(case, 12)
        model, _ = refitted(case, state, data, damping=0.01)
        slimmed, plain = slim(model, state), slim(case.dense(), state)
        far = {True: 0.0, False: 0.0}
        for batch in data.batches:
            fixed = replace(case, inputs=lambda batch=batch: batch)
            dense = fixed.run(case.dense())
            for which, other in ((True, slimmed), (False, plain)):
                far[which] += float((fixed.run(other) - dense).norm())
        assert far[True] < 0.8 * far[False], name


@pytest.mark.parametrize('number', [1, 40])
def test_too_few_rows_are_told(number, monkeypatch):
    said = []
    monkeypatch.setattr(least_squares, 'print_log', lambda message, *_: said.append(message))
    case = BY_NAME['llama-gqa']
    refitted(case, case.state('half'), data_of(case, number))
    assert ['fewer rows than inputs' in message for message in said] == [True] * (number == 1)


# What goes without being made up for


def first_hidden_states(model, state, data, path) -> list[torch.Tensor]:
    """The inputs that the reader ``path`` of a model is refitted on, batch by batch."""
    seen = {}

    class Noting(LeastSquares):
        def refit_layers(self, model, layers, inputs, kept, shifts):
            seen.update({p: [x.clone() for x in inputs] for p in layers})
            return super().refit_layers(model, layers, inputs, kept, shifts)

    Noting().apply(model, state, data, run)
    return seen[path]


def with_layer_removed(case) -> PruneState:
    """Half of the last block's neurons, and the whole layer 1."""
    neurons = {g.name: g for g in case.groups()}
    (layer,) = [g for g in BY_NAME['llama-layers'].groups() if g.name == 'model.layers.1']
    last, inside = neurons['model.layers.2.mlp'], neurons['model.layers.1.mlp']
    groups = {g.name: g for g in (inside, last, layer)}
    return PruneState(
        groups, {inside.name: torch.arange(0), last.name: torch.arange(48), layer.name: torch.arange(0)}
    )  # fmt: skip


def test_layers_that_go_are_gone_when_later_ones_are_refitted():
    case = BY_NAME['llama-gqa']
    state, data = with_layer_removed(case), data_of(case)
    path = 'model.layers.2.mlp.down_proj'
    found = first_hidden_states(case.dense(), state, data, path)
    cut = slim(case.dense(), replace(state, groups={'model.layers.1': state.groups['model.layers.1']},
                                     kept={'model.layers.1': torch.arange(0)}))  # fmt: skip
    for batch, x in zip(data.batches, found, strict=True):
        expected = refitting.first_input(cut, path, lambda batch=batch: cut(*batch))
        torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-5)
    model, changed = refitted(case, state)
    assert changed == [f'{path}.weight']
    assert case.run(slim(model, state)).isfinite().all()


def test_remove_empty_layers():
    case = BY_NAME['llama-gqa']
    pruner = StructuredPruner(
        case.units, dict(type='Fisher'), budget=dict(type='params', ratio=0.5), min_keep=0,
        remove_empty_layers=True, compensation=dict(type='LeastSquares'),
    )  # fmt: skip
    data = brute.calibration_data(samples_for('llama-gqa'))
    groups, _ = pruner.discover(case.dense())
    table = [
        torch.zeros(g.size, dtype=torch.float64) if 'layers.1' in g.name
        else 1 + torch.rand(g.size, dtype=torch.float64) for g in groups
    ]  # fmt: skip
    plan = pruner.plan(case.dense(), table=table)
    assert plan.state.removed_layers == ['model.layers.1']
    model = case.dense()
    pruner.compensation.apply(model, plan.state, data, brute.loss_of)
    expected = case.run(mask(deepcopy(model), plan.state))
    found = case.run(slim(model, plan.state))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_units_under_a_layer_norm_are_removed_plainly():
    """How those that stay will be normed isn't known before: nothing is refitted by a wrong input."""
    case = BY_NAME['branches-layer_norm']
    state = case.state('half')
    model, changed = refitted(case, state)
    normed = {g.name for g in case.groups() if any('SlimLayerNorm' in c for c in g.converts)}
    assert len(normed) == 3 and changed == []
    torch.testing.assert_close(case.run(slim(model, state)), case.run(slim(case.dense(), state)))


class Shared(nn.Module):
    """One layer reads two groups, of which one's other reader can't be refitted."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 4)
        self.both, self.alone = nn.Linear(8, 5), nn.Conv1d(4, 5, 1)

    def forward(self, x):
        a, b = self.a(x).relu(), self.b(x).relu()
        return self.both(torch.cat([a, b], -1)) + self.alone(b.movedim(-1, 1)).movedim(1, -1)


def test_a_reader_of_two_groups():
    from projects.prune_plugin.structure.units import Cut, UnitGroup

    def group(name, start, *more):
        table = tuple((start + u,) for u in range(4))
        read = Cut('both.weight', 1, side='out', table=table)
        own = Cut(f'{name}.weight', 0), Cut(f'{name}.bias', 0)
        return UnitGroup(name, 'mlp', 4, (*own, read, *more))

    groups = [group('a', 0), group('b', 4, Cut('alone.weight', 1, side='out'))]
    torch.manual_seed(0)
    model, x = Shared(), torch.randn(2, 7, 6)
    state = PruneState({g.name: g for g in groups}, {'a': torch.arange(2), 'b': torch.arange(1, 4)})
    dense = deepcopy(model)
    changed = LeastSquares().apply(model, state, Batches([(x,)]), run)
    assert changed == ['both.weight', 'both.bias']
    assert not model.both.weight[:, [2, 3, 4]].any() and not model.alone.weight[:, 0].any()
    assert torch.equal(model.alone.weight[:, 1:], dense.alone.weight[:, 1:])
    torch.testing.assert_close(slim(deepcopy(model), state)(x), mask(deepcopy(model), state)(x))


# What it leaves alone, and what it refuses


def test_modes_gradients_and_random_numbers_are_left_alone():
    case = BY_NAME['torch_encoder']
    model = case.dense().train()
    model.layers[1].eval()
    modes, modules = [m.training for m in model.modules()], list(model.modules())
    random_state = torch.get_rng_state()
    LeastSquares().apply(model, case.state('half'), data_of(case), run)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [m.training for m in model.modules()] == modes and list(model.modules()) == modules
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(type='LeastSquares', damping=0), 'prune_cfg.compensation.damping is 0; it must be'),
        (dict(type='LeastSquares', damping=-1.0), 'damping is -1.0; it must be a number > 0'),
        (dict(type='LeastSquares', damping=float('inf')), 'damping is inf'),
        (dict(type='LeastSquares', damping=float('nan')), 'damping is nan'),
        (dict(type='LeastSquares', damping=True), 'damping is True'),
        (dict(type='LeastSquares', damping='1'), "damping is '1'"),
        (
            dict(type='LeastSquares', ridge=1),
            'prune_cfg.compensation.ridge is not a key of LeastSq',
        ),
        (dict(type='Least'), "prune_cfg.compensation.type is 'Least'; valid are LeastSquares"),
        ('LeastSquares', "prune_cfg.compensation is 'LeastSquares'; it must be a dict"),
    ],
)
def test_bad_arguments(cfg, message):
    with pytest.raises(UserError, match=message):
        StructuredPruner(compensation=cfg)


def test_nan_names_the_layer():
    case = BY_NAME['llama-gqa']
    model = case.dense()
    model.model.layers[1].input_layernorm.weight.data[0] = torch.nan
    with pytest.raises(UserError, match=r'^model.layers.1.self_attn.o_proj reads NaN or infinite'):
        LeastSquares().apply(model, case.state('half'), data_of(case), run)


def test_a_reader_that_never_runs_is_named_before_anything_changes():
    case = BY_NAME['branches']
    model = case.dense()

    def half(model, batch):
        return model.classes(*batch).sum()

    with pytest.raises(UserError, match='^boxes.2 does not run in the forward pass'):
        LeastSquares().apply(model, case.state('half'), data_of(case), half)
    for key, tensor in case.dense().state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key]), key


def test_attention_of_pytorch_is_itself_again():
    case = BY_NAME['torch_encoder']
    model, _ = refitted(case, case.state('half'))
    assert type(model.layers[0].self_attn) is nn.MultiheadAttention
    with observable(model, case.groups()):
        assert type(model.layers[0].self_attn) is not nn.MultiheadAttention

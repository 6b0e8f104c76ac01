"""What must hold for every kind of unit in every family of models (one test per invariant).

A family with cases of its own has a module with ``CASES``, in which it imports these tests.
"""

import json
from copy import deepcopy

import pytest
import torch
from cases import CASES, LEVELS, random_state  # noqa: F401  CASES: see pytest_generate_tests

from projects.prune_plugin import PruneState, StructuredPruner, UserError, compose, mask, slim
from projects.prune_plugin.checkpoints.checkpoint_file import load_file, load_weights, save_file
from projects.prune_plugin.structure.units import discover


def pytest_generate_tests(metafunc):
    """Every case of the module that the test was collected in, at every level."""
    if 'level' in metafunc.fixturenames:
        metafunc.parametrize('level', LEVELS)
    if 'case' in metafunc.fixturenames:
        metafunc.parametrize('case', metafunc.module.CASES, ids=lambda case: case.name)


def same_tensors(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def skip_impossible(case, level):
    if level == 'none' and not case.empty:
        pytest.skip('a module needs at least one unit')


def test_finds_the_groups_expected(case):
    sizes = {}
    for group in case.groups():
        sizes.setdefault(group.kind, []).append(group.size)
    assert {kind: sorted(found) for kind, found in sizes.items()} == {
        kind: sorted(expected) for kind, expected in case.sizes.items()
    }
    assert case.count({}) == sum(p.numel() for p in case.dense().parameters())


def test_removing_nothing_changes_nothing(case):
    dense, state = case.dense(), case.state('all')
    before, weights = case.run(dense), deepcopy(dense.state_dict())
    for act in (mask, slim):
        model = act(deepcopy(dense), state)
        assert same_tensors(model.state_dict(), weights)
        assert torch.equal(case.run(model), before)


def test_mask_equals_slim(case, level):
    skip_impossible(case, level)
    dense, state = case.dense(), case.state(level)
    masked = case.run_masked(mask(deepcopy(dense), state), state)
    slimmed = case.run(slim(dense, state))
    assert masked.isfinite().all()
    assert (masked - slimmed).abs().max() < 1e-5 * masked.abs().max()


def test_slim_shapes_and_survivors(case, level):
    skip_impossible(case, level)
    dense, state = case.dense(), case.state(level)
    before = {name: tensor for name, tensor in dense.state_dict(keep_vars=True).items()}
    values = deepcopy(dense.state_dict())
    touched = {cut.name for group in state.reduced for cut in group.cuts}
    slimmed = slim(dense, state)
    kept = {name: len(indices) for name, indices in state.kept.items()}
    assert sum(p.numel() for p in slimmed.parameters()) == case.count(kept)
    for name, tensor in slimmed.state_dict(keep_vars=True).items():
        if name not in touched:
            assert tensor is before[name], f'{name} was replaced'
            assert torch.equal(tensor, values[name]), f'{name} changed'
        else:
            assert tensor.numel() < values[name].numel()
            some = tensor.detach().flatten()[:: 1 + tensor.numel() // 50]
            assert torch.isin(some, values[name]).all(), f'{name} was recomputed'


def test_min_keep_0_runs_or_is_refused(case):
    pruner = StructuredPruner(
        case.units, dict(type='Random'), budget=dict(type='units', ratio=0.999), min_keep=0
    )
    dense = case.dense()
    try:
        plan = pruner.plan(dense)
    except UserError:
        return  # refused in time, where a module needs one unit
    masked = case.run_masked(mask(deepcopy(dense), plan.state), plan.state)
    slimmed = case.run(slim(dense, plan.state))
    assert (masked - slimmed).abs().max() < 1e-5 * masked.abs().max()


def test_masking_touches_its_units_alone(case):
    dense, state = case.dense(), case.state('half')
    before = deepcopy(dense.state_dict())
    after = mask(dense, state).state_dict()
    fills = {}
    for cut in (cut for group in state.reduced for cut in group.cuts):
        fills.setdefault(cut.name, []).append(cut.fill)
    for name, tensor in after.items():
        changed = tensor != before[name]
        assert not changed.any() or name in fills
        new = torch.isin(tensor[changed], torch.tensor(fills.get(name, ())))
        assert new.all(), f'{name} holds new values that are not zero'


def test_round_trip(case, level, tmp_path):
    skip_impossible(case, level)
    state = case.state(level)
    slimmed = slim(case.dense(), state)
    meta = {'prune_state': json.loads(json.dumps(state.to_dict()))}
    save_file({'meta': meta, 'state_dict': slimmed.state_dict()}, tmp_path / 'slim.pth')
    checkpoint = load_file(tmp_path / 'slim.pth')
    again = PruneState.from_dict(checkpoint['meta']['prune_state'])
    assert again.to_dict() == state.to_dict() and again.digest() == state.digest()
    fresh = case.build()
    fresh.eval()
    rebuilt = slim(fresh, again)
    load_weights(rebuilt, checkpoint, 'slim.pth')
    assert same_tensors(rebuilt.state_dict(), slimmed.state_dict())
    assert torch.equal(case.run(rebuilt), case.run(slimmed))


def test_pruning_twice_composes(case):
    first = case.state('half', seed=4)
    once = slim(case.dense(), first)
    groups, _ = discover(once, case.finders())
    second = random_state(groups, 'half' if 'layer' not in case.sizes else 'one', seed=6)
    twice = slim(deepcopy(once), second)
    both = compose(first, second)
    for name, indices in second.kept.items():
        assert torch.equal(both.kept[name], first.kept[name][indices])
    reloaded = PruneState.from_dict(json.loads(json.dumps(both.to_dict())))
    direct = slim(case.dense(), reloaded)
    assert same_tensors(direct.state_dict(), twice.state_dict())
    assert torch.equal(case.run(direct), case.run(twice))


def test_gradients_reach_every_parameter(case):
    slimmed = slim(case.dense(), case.state('half'))
    trained = {n: p for n, p in slimmed.named_parameters() if p.requires_grad}
    case.loss(slimmed).backward()
    for name, parameter in trained.items():
        assert parameter.grad is not None, name
        assert parameter.grad.shape == parameter.shape and parameter.grad.isfinite().all(), name
        assert parameter.dim() == 1 or parameter.grad.any(), f'{name} gets no gradient'


def test_same_seed_same_units(case):
    pruner = StructuredPruner(case.units, dict(type='Random', seed=1), budget=dict(type='units'))
    plans = [pruner.plan(model) for model in (case.dense(), deepcopy(case.dense()))]
    assert plans[0].state.digest() == plans[1].state.digest()
    if sum(map(sum, case.sizes.values())) > 16:
        pruner = StructuredPruner(
            case.units, dict(type='Random', seed=2), budget=dict(type='units')
        )
        assert pruner.plan(case.dense()).state.digest() != plans[0].state.digest()


def test_copies_of_slim_models_stand_alone(case):
    slimmed = slim(case.dense(), case.state('half'))
    before = case.run(slimmed)
    copy = deepcopy(slimmed)
    assert torch.equal(case.run(copy), before)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
    assert torch.equal(case.run(slimmed), before)


def test_meta_tensors_will_do(case, level):
    skip_impossible(case, level)
    state = case.state(level)
    on_meta = case.dense().to('meta')
    if 'coupled' not in case.sizes:
        groups, _ = discover(on_meta, case.finders())
        assert groups == case.groups()
    shapes = {n: t.shape for n, t in slim(on_meta, state).state_dict().items()}
    assert shapes == {n: t.shape for n, t in slim(case.dense(), state).state_dict().items()}
    assert all(tensor.is_meta for tensor in on_meta.state_dict().values())

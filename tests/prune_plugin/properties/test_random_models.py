"""What must hold for whole units of any model under any settings, on random models and settings."""

import json
from copy import deepcopy

import pytest
import torch
from hypothesis import event, given
from hypothesis import strategies as st
from random_models import FAMILIES
from random_settings import check_refused, check_tight, count_left, least_counts, structured

from projects.prune_plugin import PruneState, UserError, build_pruner, compose, mask, slim
from projects.prune_plugin.checkpoints.checkpoint_file import load_file, load_weights, save_file
from projects.prune_plugin.methods.pruners import Plan
from projects.prune_plugin.structure.unit_group import named_tensors

pytestmark = pytest.mark.properties


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def check_counts(plan: Plan, floors: dict[str, int], round_to: int) -> None:
    """Floors and multiples are kept, and the best units of each group stay."""
    for group, scores in zip(plan.groups, plan.importance, strict=True):
        kept = plan.state.kept[group.name]
        assert kept.tolist() == sorted(set(kept.tolist()))
        assert not len(kept) or 0 <= kept[0] <= kept[-1] < group.size
        assert len(kept) == group.size or len(kept) % round_to == 0
        assert len(kept) >= floors[group.name]
        gone = plan.state.removed(group.name)
        assert len(gone) + len(kept) == group.size
        if len(gone) and len(kept):
            assert scores[gone].max() <= scores[kept].min()


def check_masked(drawn, dense, state, slimmed) -> None:
    """The masked model computes what the slim one does, and masking touched nothing else."""
    masked = mask(deepcopy(dense), state)
    one, other = drawn.run(masked), drawn.run(slimmed)
    assert one.isfinite().all() and one.shape == other.shape
    assert (one - other).abs().max() <= drawn.tolerance * max(one.abs().max(), 1)
    owned = {cut.name for group in state.reduced for cut in group.cuts}
    before, after = named_tensors(dense), named_tensors(masked)
    shared = {id(before[name]) for name in owned if name in before}
    for name, tensor in before.items():
        changed = tensor != after[name]
        assert not changed.any() or (id(tensor) in shared and not after[name][changed].any())


def check_reloaded(drawn, state, slimmed, folder) -> None:
    """What is saved and loaded into a fresh model is the slim model, bit for bit."""
    path = folder / 'slim.pth'
    meta = dict(prune_state=json.loads(json.dumps(state.to_dict())))
    save_file(dict(meta=meta, state_dict=slimmed.state_dict()), path)
    checkpoint = load_file(path)
    again = PruneState.from_dict(checkpoint['meta']['prune_state'])
    assert again.digest() == state.digest()
    rebuilt = slim(drawn.build(seed=99), again)
    load_weights(rebuilt, checkpoint, path)
    assert same(rebuilt.state_dict(), slimmed.state_dict())
    assert torch.equal(drawn.run(rebuilt), drawn.run(slimmed))


@pytest.mark.parametrize('family', FAMILIES)
@given(draws=st.data())
def test_units(family, draws, tmp_path_factory):
    drawn = draws.draw(FAMILIES[family]())
    dense = drawn.build(seed=1)
    prune_cfg = draws.draw(structured(drawn, dense))
    pruner = build_pruner(prune_cfg)
    before, weights = drawn.run(dense), deepcopy(dense.state_dict())
    assert drawn.count({}, *drawn.description) == sum(p.numel() for p in dense.parameters())
    next(dense.train().children()).eval()  # as frozen norms are
    modes = [module.training for module in dense.modules()]
    try:
        plan = pruner.plan(dense)
    except UserError as error:
        plan, said = None, str(error)
    assert [module.training for module in dense.modules()] == modes
    dense.eval()
    assert same(dense.state_dict(), weights) and torch.equal(drawn.run(dense), before)
    if plan is None:
        event('refused')
        check_refused(drawn, dense, pruner, said)
        return
    state = plan.state
    check_counts(plan, least_counts(plan.groups, prune_cfg), prune_cfg['round_to'] or 1)
    slimmed = slim(deepcopy(dense), state)
    kept = {name: len(indices) for name, indices in state.kept.items()}
    left = sum(p.numel() for p in slimmed.parameters())
    assert left == drawn.count(kept, *drawn.description)
    check_tight(drawn, dense, plan, prune_cfg)
    check_masked(drawn, dense, state, slimmed)
    check_reloaded(drawn, state, slimmed, tmp_path_factory.mktemp('slim'))
    assert same(dense.state_dict(), weights) and torch.equal(drawn.run(dense), before)
    check_twice(drawn, dense, prune_cfg, state, slimmed)


def check_twice(drawn, dense, prune_cfg, first, once) -> None:
    """Pruning the slim model again gives a state that leads there from the dense model, too."""
    again = {**prune_cfg, 'budget': dict(type='units', ratio=0.2)}
    try:
        second = build_pruner(again).plan(once).state
    except UserError:
        return
    event('pruned twice')
    twice = slim(deepcopy(once), second)
    direct = slim(deepcopy(dense), compose(first, second))
    assert same(direct.state_dict(), twice.state_dict())
    assert torch.equal(drawn.run(direct), drawn.run(twice))
    assert count_left(direct) == count_left(twice)

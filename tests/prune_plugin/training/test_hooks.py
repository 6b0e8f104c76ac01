"""Hooks through real Runners: training, EMA, checkpoints, resuming."""

from copy import deepcopy

import numpy as np
import pytest
import torch
import toy
from mmengine.registry import MODELS

from projects.prune_plugin import StructuredPruner, UserError, WeightPruner, slim
from projects.prune_plugin.checkpoints.checkpoint_file import load_file, use_safe_loader
from projects.prune_plugin.checkpoints.optimizer_state import parameter_order, slim_optimizer_state
from projects.prune_plugin.training.hooks.mask_hook import MaskHook, pack_masks, unpack_masks


@pytest.fixture(autouse=True)
def safe_loader():
    """As the tools do."""
    from mmengine.runner.checkpoint import CheckpointLoader

    schemes = dict(CheckpointLoader._schemes)
    use_safe_loader()
    yield
    CheckpointLoader._schemes = schemes


@pytest.fixture
def masked(tmp_path):
    """A masked checkpoint and its masks."""
    torch.manual_seed(0)
    model = MODELS.build(dict(toy.MODEL))
    masks = WeightPruner(budget=dict(type='weights', ratio=0.6)).sparsify(model)
    state = deepcopy(model.state_dict())
    for name, keep in masks.items():
        state[name].mul_(keep)
    path = tmp_path / 'toy_pruned.pth'
    torch.save(dict(meta={}, state_dict=state, masks=pack_masks(masks)), path)
    return str(path), masks


def assert_masked(state: dict, masks: dict) -> None:
    for name, keep in masks.items():
        weight = state[name]
        assert not weight[~keep].any(), f'{name} grew back'
        assert (weight[keep] != 0).all()


def test_masks_pack_and_unpack():
    masks = {'a': torch.rand(3, 5) > 0.5, 'b': torch.rand(7) > 0.5, 'c': torch.ones(2, 2, 2) > 0}
    packed = pack_masks(masks)
    assert packed['a']['bits'].numel() == 2  # fifteen weights in two bytes
    again = unpack_masks(packed)
    assert all(torch.equal(again[name], mask) for name, mask in masks.items())
    for entry in (
        {},
        {'shape': [3]},
        {'shape': [99], 'bits': torch.zeros(1, dtype=torch.uint8)},
        3,
    ):
        with pytest.raises(UserError, match="malformed mask for 'a'"):
            unpack_masks({'a': entry})


def test_masked_weights_stay_zero(tmp_path, masked):
    path, masks = masked
    run = toy.runner(tmp_path / 'work', hooks=[toy.EMA, dict(type='MaskHook')], load_from=path)
    run.train()
    assert_masked(run.model.state_dict(), masks)
    before = torch.load(path, weights_only=True)['state_dict']
    assert not torch.equal(run.model.state_dict()['mlp.fc1.weight'], before['mlp.fc1.weight'])
    for epoch in (1, 2):
        saved = load_file(tmp_path / 'work' / f'epoch_{epoch}.pth')
        assert_masked(saved['state_dict'], masks)
        assert_masked(
            {n.removeprefix('module.'): w for n, w in saved['ema_state_dict'].items()}, masks
        )
        found = unpack_masks(saved['masks'])
        assert all(torch.equal(found[name], keep) for name, keep in masks.items())


def test_without_the_hook_they_would_grow_back(tmp_path, masked):
    path, masks = masked
    run = toy.runner(tmp_path / 'work', load_from=path)
    run.train()
    name = 'mlp.fc1.weight'
    assert run.model.state_dict()[name][~masks[name]].any()


@pytest.mark.parametrize('hooks', [['MaskHook'], ['MaskHook', 'EMAHook'], []], ids='-'.join)
def test_resumed_runs_end_like_uninterrupted_ones(tmp_path, masked, hooks):
    path, masks = masked
    configs = [toy.EMA if name == 'EMAHook' else dict(type=name) for name in hooks]
    schedule = [dict(type='WarmupCosineLR', end=3, warmup=2, convert_to_iter_based=True)]

    def run(folder, **kwargs):
        settings = dict(hooks=deepcopy(configs), param_scheduler=deepcopy(schedule))
        runner = toy.runner(tmp_path / folder, **{**settings, **kwargs})
        runner.train()
        return load_file(tmp_path / folder / 'epoch_3.pth')

    whole = run('whole', epochs=3, load_from=path)

    class Killed(Exception):
        pass

    from mmengine.hooks import Hook

    class Kill(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if runner.epoch == 1 and batch_idx == 1:
                raise Killed

    interrupted = toy.runner(
        tmp_path / 'part', epochs=3, hooks=deepcopy(configs), load_from=path,
        param_scheduler=deepcopy(schedule),
    )  # fmt: skip
    interrupted.register_hook(Kill(), 'LOWEST')
    with pytest.raises(Killed):
        interrupted.train()
    part = run('part', epochs=3, resume=True)
    for key in ('state_dict', 'ema_state_dict') if 'EMAHook' in hooks else ('state_dict',):
        assert whole[key].keys() == part[key].keys()
        assert all(torch.equal(part[key][name], w) for name, w in whole[key].items()), key
    if 'MaskHook' in hooks:
        assert_masked(part['state_dict'], masks)
        assert {n: m['bits'].tolist() for n, m in part['masks'].items()} == {
            n: m['bits'].tolist() for n, m in whole['masks'].items()
        }


def test_masks_of_another_model_are_refused(tmp_path, masked):
    hook = MaskHook()
    hook.masks = {'mlp.fc1.weight': torch.ones(2, 2, dtype=torch.bool)}
    with pytest.raises(UserError, match="mask for 'mlp.fc1.weight' fits no parameter"):
        hook.before_train(type('R', (), dict(model=MODELS.build(dict(toy.MODEL)))))


@pytest.fixture
def slimmed(tmp_path):
    """A dense run of two epochs, and the slim checkpoint made from it."""
    toy.runner(tmp_path / 'dense').train()
    dense = load_file(tmp_path / 'dense' / 'epoch_2.pth')
    model = MODELS.build(dict(toy.MODEL))
    model.load_state_dict(dense['state_dict'])
    before = parameter_order(model, toy.ADAMW)
    pruner = StructuredPruner([dict(type='FFNNeurons')], budget=dict(type='units', ratio=0.5))
    state = pruner.plan(model).state
    slim(model, state)
    optimizer = slim_optimizer_state(
        dense['optimizer'], before, parameter_order(model, toy.ADAMW), state
    )
    meta = dict(epoch=2, iter=6, prune_state=state.to_dict())
    path = tmp_path / 'toy_structured_pruned.pth'
    groups = dense['optimizer']['param_groups']
    torch.save(
        dict(
            meta=meta,
            state_dict=model.state_dict(),
            optimizer=dict(state=optimizer, param_groups=groups),
        ),
        path,
    )
    return str(path), state


def slim_cfg(source) -> dict:
    return dict(type='SlimModel', model=dict(toy.MODEL), prune_state=source)


def test_prune_state_travels_with_every_checkpoint(tmp_path, slimmed):
    path, state = slimmed
    hooks = [dict(type='PruneStateHook'), dict(type='LatestCheckpointHook')]
    run = toy.runner(tmp_path / 'work', hooks=hooks, model=slim_cfg(path), load_from=path)
    run.train()
    for epoch in (1, 2):
        meta = load_file(tmp_path / 'work' / f'epoch_{epoch}.pth')['meta']
        assert meta['prune_state'] == state.to_dict()
    latest = tmp_path / 'work' / 'latest.pth'
    assert latest.is_symlink() and str(latest.readlink()) == 'epoch_2.pth'
    assert load_file(latest)['meta']['epoch'] == 2


def test_checkpoints_of_another_structure_are_refused(tmp_path, slimmed):
    path, _ = slimmed
    other = StructuredPruner(
        [dict(type='FFNNeurons')], dict(type='Random', seed=4), budget=dict(type='units', ratio=0.5)
    )
    other_state = other.plan(MODELS.build(dict(toy.MODEL))).state.to_dict()
    dense = str(tmp_path / 'dense' / 'epoch_2.pth')
    for model, load_from in (
        (slim_cfg(other_state), path),
        (slim_cfg(path), dense),
        (dict(toy.MODEL), path),
    ):
        run = toy.runner(
            tmp_path / 'work', hooks=[dict(type='PruneStateHook')], model=model, load_from=load_from
        )
        with pytest.raises(UserError, match='was pruned differently from the model'):
            run.train()


def test_carry_over_goes_on_where_training_stopped(tmp_path, slimmed):
    path, _ = slimmed
    hooks = [dict(type='CarryOverHook'), dict(type='PruneStateHook')]
    optim = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.005, weight_decay=0.1))
    run = toy.runner(
        tmp_path / 'work', epochs=4, hooks=hooks, model=slim_cfg(path), load_from=path,
        optim_wrapper=optim,
    )  # fmt: skip
    run.train()
    saved = sorted(p.name for p in (tmp_path / 'work').glob('epoch_*.pth'))
    assert saved == ['epoch_3.pth', 'epoch_4.pth']
    assert run.iter == 12
    entries = run.optim_wrapper.optimizer.state.values()
    assert all(float(entry['step']) == 12 for entry in entries)
    assert run.optim_wrapper.get_lr()['lr'] == [0.005]


def test_without_carry_over_training_starts_anew(tmp_path, slimmed):
    path, _ = slimmed
    run = toy.runner(tmp_path / 'work', epochs=1, model=slim_cfg(path), load_from=path)
    run.train()
    assert [p.name for p in (tmp_path / 'work').glob('epoch_*.pth')] == ['epoch_1.pth']
    assert all(float(e['step']) == 3 for e in run.optim_wrapper.optimizer.state.values())


def test_resuming_a_fine_tuning_is_not_carried_over_again(tmp_path, slimmed):
    path, _ = slimmed
    hooks = [dict(type='CarryOverHook'), dict(type='PruneStateHook')]
    model = slim_cfg(path)

    def run(folder, epochs, **kwargs):
        one = toy.runner(
            tmp_path / folder, epochs=epochs, hooks=deepcopy(hooks), model=deepcopy(model), **kwargs
        )
        one.train()
        return one

    whole = run('whole', 4, load_from=path)
    run('part', 3, load_from=path)
    part = run('part', 4, resume=True)
    assert whole.iter == part.iter == 12
    ours, theirs = part.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())


def test_latest_needs_a_checkpoint(tmp_path):
    run = toy.runner(
        tmp_path / 'work', epochs=1, hooks=[dict(type='LatestCheckpointHook')],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=5, save_last=False)),
    )  # fmt: skip
    run.train()
    assert not (tmp_path / 'work' / 'latest.pth').is_symlink()


def test_packed_masks_are_plain_tensors():
    packed = pack_masks({'a': torch.tensor([True, False, True])})
    assert packed['a']['bits'].dtype == torch.uint8
    assert np.unpackbits(packed['a']['bits'].numpy(), count=3).tolist() == [1, 0, 1]

"""Epochs of at most so many iterations: learning rate, logs, accumulation, resuming."""

import json

import pytest
import torch
import toy
from mmengine.config import Config
from mmengine.hooks import Hook
from recovering import config, pruned, recovered

from projects.prune_plugin import UserError
from projects.prune_plugin.checkpoints.checkpoint_file import load_file
from projects.prune_plugin.common.settings import read_settings
from projects.prune_plugin.training.config_edits import limit_epochs, recovery_config, settings_for
from projects.prune_plugin.training.loops.limited_epochs import LimitedLoader
from projects.prune_plugin.training.lr_schedulers import warmup_cosine
from projects.prune_plugin.training.settings import RecoverySettings

#: The toy's whole epoch has six.
STEPS = 4
LOADER = dict(toy.LOADER, batch_size=4)


class Watch(Hook):
    """Notes the learning rate and the first sample of each iteration, and dies if told."""

    def __init__(self, dies_at: int | None = None):
        self.rates, self.samples, self.dies_at = [], [], dies_at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.dies_at:
            raise KeyboardInterrupt
        self.rates.append(runner.optim_wrapper.get_lr()['lr'][0])
        self.samples.append(data_batch['inputs'][0].tolist())


def limited(folder, epochs=3, watch=None, **kwargs):
    """A Runner as recovery sets it up."""
    cfg = Config(dict(train_cfg=dict(by_epoch=True, max_epochs=epochs)))
    limit_epochs(cfg, STEPS)
    schedule = dict(type='WarmupCosineLR', end=epochs, warmup=2, convert_to_iter_based=True)
    settings = dict(
        train_cfg=cfg.train_cfg, train_dataloader=dict(LOADER), param_scheduler=[schedule],
        hooks=[dict(type='EpochSeedHook')],
    )  # fmt: skip
    run = toy.runner(folder, **{**settings, **kwargs})
    if watch:
        run.register_hook(watch)
    return run


def test_epochs_end_early_and_everything_knows(tmp_path):
    watch = Watch()
    run = limited(tmp_path, watch=watch, default_hooks=dict(
        logger=dict(type='LoggerHook', interval=1), checkpoint=dict(type='CheckpointHook', interval=1),
        sampler_seed=dict(type='DistSamplerSeedHook'),
        param_scheduler=dict(type='ParamSchedulerHook'),
    ))  # fmt: skip
    run.train()
    assert (run.iter, run.max_iters, run.epoch) == (3 * STEPS, 3 * STEPS, 3)
    expected = [0.05 * warmup_cosine(i, 3 * STEPS, 2) for i in range(3 * STEPS)]
    assert watch.rates == pytest.approx(expected)
    epochs = [watch.samples[i * STEPS : (i + 1) * STEPS] for i in range(3)]
    assert epochs[0] != epochs[1] != epochs[2], 'each epoch shuffles anew'
    saved = [load_file(tmp_path / f'epoch_{epoch}.pth')['meta'] for epoch in (1, 2, 3)]
    assert [meta['iter'] for meta in saved] == [4, 8, 12]
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line['step'] for line in lines] == list(range(1, 13))
    assert [line['epoch'] for line in lines] == [1] * 4 + [2] * 4 + [3] * 4


@pytest.mark.parametrize('counts', [1, 2])
@pytest.mark.parametrize('dies_at', [5, 9])
def test_killed_and_resumed_is_uninterrupted(counts, dies_at, tmp_path):
    wrapper = dict(toy.ADAMW, accumulative_counts=counts)
    whole = limited(tmp_path / 'whole', optim_wrapper=dict(wrapper))
    whole.train()
    part = limited(tmp_path / 'part', watch=Watch(dies_at), optim_wrapper=dict(wrapper))
    with pytest.raises(KeyboardInterrupt):
        part.train()
    watch = Watch()
    part = limited(tmp_path / 'part', watch=watch, optim_wrapper=dict(wrapper), resume=True)
    part.train()
    assert part.iter == whole.iter and len(watch.rates) == 12 - dies_at // STEPS * STEPS
    ours, theirs = part.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())


def test_accumulated_gradients_are_used_up_at_the_end(tmp_path):
    """Three counts don't divide twelve iterations evenly after carrying over; updates are counted."""
    run = limited(tmp_path, optim_wrapper=dict(toy.ADAMW, accumulative_counts=5))
    run.train()
    (state, *_) = run.optim_wrapper.optimizer.state.values()
    assert int(state['step']) == 3  # after iterations 5, 10 and 12


def test_a_limit_above_the_data_changes_nothing(tmp_path):
    first = toy.runner(tmp_path / 'a')
    first.train()
    second = toy.runner(
        tmp_path / 'b', train_cfg=dict(type='LimitedEpochTrainLoop', max_epochs=2, max_steps=99)
    )
    second.train()
    assert first.iter == second.iter == 6
    ours, theirs = second.model.state_dict(), first.model.state_dict()
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())


def test_workers_may_be_left_early(tmp_path):
    loader = dict(LOADER, num_workers=1, persistent_workers=True)
    run = limited(tmp_path, epochs=2, train_dataloader=loader)
    run.train()
    assert run.iter == 2 * STEPS


def test_the_loader_is_otherwise_the_old_one():
    from mmengine.runner import Runner

    loader = Runner.build_dataloader(dict(LOADER), seed=0)
    limited = LimitedLoader(loader, 99)
    assert limited.batch_size == 4 and limited.dataset is loader.dataset
    assert len(limited) == len(list(limited)) == 6
    with pytest.raises(AttributeError):
        _ = limited.nothing


def test_recovery_sets_steps_and_rate(tmp_path):
    settings = read_settings(
        RecoverySettings, dict(epochs=2, max_steps=5, lr=1e-5), 'prune_cfg.recovery'
    )
    made = recovery_config(config(), settings, dict(meta=dict(epoch=3)), tmp_path / 'a', tmp_path)
    assert made.train_cfg == dict(type='LimitedEpochTrainLoop', max_epochs=5, max_steps=5)
    assert made.optim_wrapper.optimizer.lr == 1e-5
    again = settings_for(settings, retrain=False, epochs=7)
    assert (again.lr, again.lr_factor, again.epochs, again.max_steps) == (1e-5, None, 7, 5)
    other = settings_for(settings, retrain=True, epochs=None)
    assert (other.lr, other.lr_factor, other.max_steps) == (None, 0.5, 5)


def test_zeros_stay_with_everything_at_once(tmp_path):
    """Mixed precision, accumulation, clipping, an EMA; momentum carried over from dense training."""
    path = pruned(tmp_path, 'masked', toy.MODEL)
    wrapper = dict(type='Bf16OptimWrapper', accumulative_counts=2, clip_grad=dict(max_norm=0.5))
    cfg = config(wrapper=wrapper, custom_hooks=[dict(type='EMAHook', momentum=0.2)])
    run = recovered(path, tmp_path / 'work', cfg=cfg, max_steps=2, lr=0.02)
    assert (run.iter, run.max_iters, run.epoch) == (8, 8, 4)  # two epochs before, two now
    steps = {int(state['step']) for state in run.optim_wrapper.optimizer.state.values()}
    assert steps == {6 + 2}  # of dense training, and one for each two iterations
    start, last = load_file(path), load_file(tmp_path / 'work' / 'epoch_4.pth')
    for key in ('state_dict', 'ema_state_dict'):
        weights = {name.removeprefix('module.'): w for name, w in last[key].items()}
        for name in start['masks']:
            before = start['state_dict'][name]
            assert not weights[name][before == 0].any()
            assert not torch.equal(weights[name], before)


@pytest.mark.parametrize(
    ('block', 'message'),
    [
        (dict(max_steps=0), 'max_steps is 0; it must be a whole number >= 1'),
        (dict(max_steps=2.5), 'max_steps is 2.5'),
        (dict(lr=0), 'lr is 0; it must be a number > 0'),
        (dict(lr='1e-5'), "lr is '1e-5'"),
        (dict(lr=1e-5, lr_factor=0.1), 'lr and lr_factor are given, 1e-05 and 0.1; give one'),
        (dict(lr=1e-5, lora=dict(lr=1e-4)), 'lr and lora.lr are given'),
    ],
)
def test_bad_keys_are_named(block, message):
    with pytest.raises(UserError, match=rf'prune_cfg\.recovery\.{message}'):
        read_settings(RecoverySettings, block, 'prune_cfg.recovery')


def test_another_loop_is_refused():
    cfg = config(train_cfg=dict(type='OwnLoop', max_epochs=2))
    with pytest.raises(UserError, match="max_steps is 5, but train_cfg.type is 'OwnLoop'"):
        recovery_config(cfg, RecoverySettings(max_steps=5), dict(meta={}), 'a', 'b')

"""Lottery tickets on a toy model: what stays, what is rewound, what a killed run ends as."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
import recovering
import torch
import torch.distributed as torch_dist
import toy
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import METRICS

from projects.prune_plugin import UserError
from projects.prune_plugin.checkpoints.checkpoint_file import load_file
from projects.prune_plugin.checkpoints.model_loading import load_model
from projects.prune_plugin.common.model_wrappers import unwrapped
from projects.prune_plugin.methods.pruners.unit_selection import UnitSelection
from projects.prune_plugin.training.config_edits import TRAINING_HOOKS, add_hooks, fit_to_device
from projects.prune_plugin.training.hooks.mask_hook import unpack_masks
from projects.prune_plugin.training.runner_building import build_runner
from projects.prune_plugin.workflows.iterate import train_loop
from projects.prune_plugin.workflows.train import train

NEURONS = dict(
    units=[dict(type='FFNNeurons')], criterion=dict(type='L1'), allocator=dict(type='Global'),
    budget=dict(type='units', ratio=0.5),
)  # fmt: skip
ROUNDS = dict(type='Geometric', rounds=2, rewind='initial')
WEIGHTS = dict(
    type='WeightPruner', sparsifier=dict(type='Magnitude', scope='global'), budget=dict(ratio=0.75)
)
SGD = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9))


@METRICS.register_module(force=True)
class ToyAccuracy(BaseMetric):
    default_prefix = 'accuracy'

    def process(self, data_batch, data_samples):
        for logits, label in zip(data_samples, data_batch['labels'], strict=True):
            self.results.append(float(logits.argmax() == label))

    def compute_metrics(self, results):
        return dict(top1=100 * sum(results) / len(results))


def config(work_dir, prune_cfg=None, schedule=None, **kwargs) -> Config:
    """Two epochs of three steps per state."""
    loader = dict(toy.LOADER, sampler=dict(type='DefaultSampler', shuffle=False))
    cfg = recovering.config(
        train_cfg=dict(type='IterativePruneLoop', max_epochs=2),
        prune_cfg={**(prune_cfg or NEURONS), 'schedule': schedule or ROUNDS},
        optim_wrapper=deepcopy(SGD),
        val_dataloader=loader, val_cfg=dict(), val_evaluator=dict(type='ToyAccuracy'),
        work_dir=str(work_dir), experiment_name=f'ticket-{next(toy.RUNS)}', **kwargs,
    )  # fmt: skip
    if torch_dist.is_initialized():
        cfg.train_dataloader.batch_size = 4
    return cfg


class Spy(Hook):
    """Weights and optimizer at the first step of each epoch, and what is done at each step."""

    priority = 'VERY_LOW'

    def __init__(self, at=None):
        self.starts, self.fresh, self.at, self.lrs = {}, {}, at, []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == 0:
            state = unwrapped(runner).state_dict()
            self.starts[runner.epoch] = {k: v.clone() for k, v in state.items()}
            self.fresh[runner.epoch] = not runner.optim_wrapper.optimizer.state
        self.lrs.append(runner.optim_wrapper.get_lr()['lr'][0])
        if self.at == (runner.epoch, batch_idx):
            raise recovering.Killed


def run(cfg, spy=None):
    """As tools/train.py does, with a hook."""
    add_hooks(cfg, *TRAINING_HOOKS)
    fit_to_device(cfg, 'pytorch' if torch_dist.is_initialized() else 'none')
    runner = build_runner(cfg)
    if spy:
        runner.register_hook(spy)
    runner.train()
    return runner


def kept_units(path: Path) -> list[int]:
    (group,) = load_file(path)['meta']['prune_state']['groups'].values()
    return group['kept']


def neuron_l1(weights) -> torch.Tensor:
    return weights['mlp.fc1.weight'].abs().sum(1) + weights['mlp.fc2.weight'].abs().sum(0)


def test_states_are_nested_rewound_and_chosen_by_the_trained_weights(tmp_path):
    spy = Spy()
    runner = run(config(tmp_path), spy)
    assert runner.epoch == runner.max_epochs == 6
    kept = [kept_units(tmp_path / f'state_{state:02d}.pth') for state in range(3)]
    assert [len(units) for units in kept] == [16, 11, 8]  # 16 x 0.5 ** (state / 2), rounded down
    assert set(kept[2]) < set(kept[1])
    initial = spy.starts[0]
    for state in (1, 2):
        trained = load_file(tmp_path / f'epoch_{2 * state}.pth')['state_dict']
        worth = neuron_l1(trained)
        worth[[unit for unit in range(16) if unit not in kept[state - 1]]] = -1
        assert kept[state] == sorted(worth.topk(len(kept[state])).indices.tolist())
        gone = [unit for unit in range(16) if unit not in kept[state]]
        for epoch in (2 * state, 2 * state + 1):
            start = spy.starts[epoch]
            assert (start['mlp.fc1.weight'][gone] == 0).all() and (
                start['mlp.fc1.bias'][gone] == 0
            ).all()
            assert (start['mlp.fc2.weight'][:, gone] == 0).all()
        start, stays = spy.starts[2 * state], kept[state]
        assert torch.equal(start['mlp.fc1.weight'][stays], initial['mlp.fc1.weight'][stays])
        assert torch.equal(start['mlp.fc2.weight'][:, stays], initial['mlp.fc2.weight'][:, stays])
        assert torch.equal(start['mlp.fc2.bias'], initial['mlp.fc2.bias'])
    assert spy.fresh == {0: True, 1: False, 2: True, 3: False, 4: True, 5: False}


def test_the_cut_model_is_the_masked_one(tmp_path):
    runner = run(config(tmp_path))
    cfg = recovering.config()
    slim = load_model(cfg, str(tmp_path / 'state_02.pth')).model.eval()
    assert slim.mlp.fc1.weight.shape == (8, 6)
    masked, x = unwrapped(runner).eval(), toy.ToyData().inputs
    assert torch.allclose(slim(x), masked(x), atol=1e-6)
    rows = json.loads((tmp_path / 'states.json').read_text())
    assert [row['state'] for row in rows] == [0, 1, 2]
    (drawn,) = tmp_path.rglob('scalars.json')
    lines = [json.loads(line) for line in drawn.read_text().splitlines()]
    rounds = [line for line in lines if 'pruning/round' in line]
    assert [line['pruning/round'] for line in rounds] == [0, 1, 2]
    assert (
        rounds[-1]['pruning/kept/mlp'] == 8 / 16
        and rounds[-1]['pruning/params'] == rows[2]['params']
    )
    accuracy = 100 * float((slim(x).argmax(1) == toy.ToyData().labels).float().mean())
    assert rows[-1]['after_removal']['accuracy/top1'] == pytest.approx(accuracy)
    assert rows[-1]['before_removal'] == rows[-1]['after_removal']
    assert rows[-1]['params'] == sum(p.numel() for p in slim.parameters())
    for name in ('states.csv', 'states.png', 'kept_per_layer.png'):
        assert (tmp_path / name).stat().st_size > 0


@pytest.mark.parametrize('rewind', [None, 1])
def test_other_points_to_rewind_to(tmp_path, rewind):
    spy = Spy()
    run(config(tmp_path, schedule=dict(ROUNDS, rewind=rewind)), spy)
    keep = kept_units(tmp_path / 'state_01.pth')
    expected = spy.starts[1] if rewind else load_file(tmp_path / 'epoch_2.pth')['state_dict']
    assert torch.equal(spy.starts[2]['mlp.fc1.weight'][keep], expected['mlp.fc1.weight'][keep])


def test_schedules_of_the_learning_rate_begin_anew(tmp_path):
    spy = Spy()
    scheduler = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3),
        dict(type='CosineAnnealingLR', by_epoch=True, eta_min=0.0),
    ]
    run(config(tmp_path, param_scheduler=scheduler), spy)
    assert spy.lrs[0] == pytest.approx(0.01) and len(spy.lrs) == 18
    assert spy.lrs[:6] == spy.lrs[6:12] == spy.lrs[12:]
    assert spy.lrs[5] == pytest.approx(0.05)  # half of a state's cosine, not a sixth of the run's


def test_single_weights(tmp_path):
    spy = Spy()
    run(config(tmp_path, WEIGHTS), spy)
    total = 16 * 6 + 3 * 16
    counts = []
    for state in range(3):
        checkpoint = load_file(tmp_path / f'state_{state:02d}.pth')
        masks = unpack_masks(checkpoint['masks'])
        counts.append(sum(int(keep.sum()) for keep in masks.values()))
        for name, keep in masks.items():
            assert (checkpoint['state_dict'][name][~keep] == 0).all()
            if state:
                start = spy.starts[2 * state][name]
                assert torch.equal(start, spy.starts[0][name] * keep)
    assert counts == [total, total // 2, total // 4]


def test_refill_plus_keeps_a_share_of_what_would_go(tmp_path):
    run(config(tmp_path, dict(NEURONS, fillback_rate=0.5)))
    assert len(kept_units(tmp_path / 'state_02.pth')) == 12  # 8 + half of the other 8


PENALTY = dict(type='RSST', strength=3.0, schedule='x')


# Killed and resumed


def ends_alike(one: Path, other: Path) -> None:
    """Same weights, same masks, same states, same tables."""
    for name in ('epoch_6.pth', *(f'state_{state:02d}.pth' for state in range(3))):
        ours, theirs = load_file(one / name), load_file(other / name)
        assert recovering.same(ours['state_dict'], theirs['state_dict']), name
    assert (one / 'states.json').read_text() == (other / 'states.json').read_text()


MOMENTS = [
    'mid epoch',
    'pruning',
    'after pruning',
    'saving a state',
    'saving an epoch',
    'evaluating',
]


@pytest.mark.parametrize('soft', [False, True], ids=['hard', 'soft'])
@pytest.mark.parametrize('moment', MOMENTS)
def test_a_killed_run_ends_as_an_unbroken_one(tmp_path, monkeypatch, moment, soft):
    prune_cfg = dict(NEURONS, penalty=PENALTY) if soft else NEURONS
    run(config(tmp_path / 'whole', prune_cfg))
    spy, loop = Spy((3, 1) if moment == 'mid epoch' else None), train_loop.IterativePruneLoop
    with monkeypatch.context() as patch:

        def breaks(owner, name, on):
            original, calls = getattr(owner, name), []

            def broken(*args, **kwargs):
                calls.append(args)
                if len(calls) == on:
                    raise recovering.Killed
                return original(*args, **kwargs)

            patch.setattr(owner, name, broken)

        if moment == 'pruning':
            breaks(UnitSelection, 'choose', 1)
        elif moment == 'after pruning':
            breaks(loop, 'train', 2)
        elif moment == 'saving a state':
            breaks(train_loop, 'save_file', 2)
        elif moment == 'saving an epoch':
            breaks(torch, 'save', 6)
        elif moment == 'evaluating':
            breaks(ToyAccuracy, 'compute_metrics', 5)
        with pytest.raises(recovering.Killed):
            run(config(tmp_path / 'killed', prune_cfg), spy)
    cfg = config(tmp_path / 'killed', prune_cfg)
    cfg.resume = True
    train(cfg, 'none')
    ends_alike(tmp_path / 'whole', tmp_path / 'killed')


def test_another_plan_cannot_be_resumed(tmp_path):
    with pytest.raises(recovering.Killed):
        run(config(tmp_path), Spy((3, 1)))
    cfg = config(tmp_path, schedule=dict(ROUNDS, rounds=3))
    cfg.resume = True
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    with pytest.raises(UserError, match='other targets per state'):
        train(cfg, 'none')
    assert before == {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}


# Two processes


def trained_on_a_rank(folder: str, kind: str) -> None:
    prune_cfg = {'soft': dict(NEURONS, penalty=PENALTY), 'hard': NEURONS, 'weights': WEIGHTS}[kind]
    run(config(folder, prune_cfg))


@pytest.mark.parametrize('kind', ['hard', 'soft', 'weights'])
def test_two_processes_choose_what_one_does(tmp_path, kind):
    recovering.on_two_ranks(trained_on_a_rank, str(tmp_path / 'two'), kind)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trained_on_a_rank(str(tmp_path / 'one'), kind)
    finally:
        torch.set_num_threads(threads)
    for state in range(3):
        one, two = (load_file(tmp_path / n / f'state_{state:02d}.pth') for n in ('one', 'two'))
        if kind == 'weights':
            ours, theirs = (unpack_masks(c['masks']) for c in (one, two))
            assert recovering.same(ours, theirs)
        else:
            assert one['meta']['prune_state'] == two['meta']['prune_state']
        for name, tensor in one['state_dict'].items():
            assert torch.allclose(tensor, two['state_dict'][name], atol=1e-5)


# What is refused


@pytest.mark.parametrize(
    ('prune_cfg', 'schedule', 'message'),
    [
        (dict(NEURONS, fillback_rate=1), ROUNDS, 'prune_cfg.fillback_rate is 1'),
        (dict(NEURONS, penalty=dict(type='RST')), ROUNDS, "prune_cfg.penalty.type is 'RST'"),
        (
            dict(NEURONS, penalty=dict(type='RSST', schedule='y')),
            ROUNDS,
            'schedule is .*valid are x',
        ),
        (
            dict(NEURONS, penalty=dict(type='RSST', strength=0)),
            ROUNDS,
            'prune_cfg.penalty.strength',
        ),
        (NEURONS, dict(ROUNDS, rewind='early'), 'rewind is .early.*number of an epoch'),
        (NEURONS, dict(ROUNDS, rewind=-1), 'rewind is -1'),
        (NEURONS, dict(ROUNDS, rounds=40), 'pruning state 2 .* nothing more'),
        (dict(NEURONS, min_keep=10), ROUNDS, r'pruning state 2 .*budget\.ratio'),
    ],
)
def test_refused(tmp_path, prune_cfg, schedule, message):
    with pytest.raises(UserError, match=message):
        train(config(tmp_path, prune_cfg, schedule), 'none')


def test_a_structured_pruner_needs_the_loop_for_rounds(tmp_path):
    cfg = config(tmp_path)
    cfg.train_cfg = dict(by_epoch=True, max_epochs=2)
    with pytest.raises(UserError, match='IterativePruneLoop'):
        train(cfg, 'none')
    cfg = config(tmp_path, WEIGHTS, dict(ROUNDS, rewind=3))
    cfg.train_cfg = dict(by_epoch=True, max_epochs=2)
    with pytest.raises(UserError, match='schedule.rewind=3 needs'):
        train(cfg, 'none')


def test_the_loop_needs_a_prune_cfg(tmp_path):
    cfg = config(tmp_path)
    cfg.pop('prune_cfg')
    with pytest.raises(UserError, match='there is no prune_cfg'):
        run(cfg)


def test_an_average_of_weights_is_refused(tmp_path):
    cfg = config(tmp_path, custom_hooks=[dict(type='EMAHook')])
    with pytest.raises(UserError, match='IterativePruneLoop'):
        train(cfg, 'none')


def test_a_checkpoint_of_another_loop_cannot_be_resumed(tmp_path):
    cfg = config(tmp_path)
    cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
    cfg.pop('prune_cfg')
    run(cfg)
    again = config(tmp_path)
    again.resume = True
    with pytest.raises(UserError, match='not of an IterativePruneLoop'):
        train(again, 'none')

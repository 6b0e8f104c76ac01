"""Schedules: targets of each round against their definitions, and what a pruner makes of them."""

import math

import pytest
from cases import SCHEDULE_ROWS

from projects.prune_plugin import SCHEDULES, StructuredPruner, UserError, WeightPruner
from projects.prune_plugin.common.registry import build
from projects.prune_plugin.methods.schedules import Geometric
from projects.prune_plugin.training.settings import RecoverySettings
from projects.prune_plugin.workflows.iterate.runner_per_round import scaled_lr


def pruner(ratio=None, schedule=None, **more) -> WeightPruner:
    budget = {} if ratio is None else dict(ratio=ratio)
    return WeightPruner(budget=budget, schedule=schedule or dict(type='OneShot'), **more)


@pytest.mark.parametrize('row', SCHEDULE_ROWS, ids=lambda row: row['type'])
@pytest.mark.parametrize('target', [0.05, 0.5, 0.9, 0.99])
def test_ratios_ascend_to_the_target(row, target):
    schedule = build(SCHEDULES, row, 'schedule')
    target = schedule.own_ratio or target
    ratios = schedule.ratios(target)
    assert ratios[-1] == target
    assert all(a < b for a, b in zip([0, *ratios], ratios, strict=False))


@pytest.mark.parametrize(
    ('share', 'target', 'rounds'), [(0.1, 0.9, 22), (0.1, 0.5, 7), (0.1, 0.95, 29), (0.5, 0.75, 2)]
)
def test_geometric_removes_a_share_of_the_rest(share, target, rounds):
    ratios = build(SCHEDULES, dict(type='Geometric', share=share), 'schedule').ratios(target)
    assert len(ratios) == rounds
    assert rounds == math.ceil(math.log(1 - target) / math.log(1 - share) - 1e-9)
    for n, ratio in enumerate(ratios[:-1], 1):
        assert 1 - ratio == pytest.approx((1 - share) ** n)
    assert ratios[-1] == target  # and not what the last share would make it
    assert 1 - (1 - share) ** rounds >= target - 1e-12


def test_geometric_in_one_round():
    assert build(SCHEDULES, dict(type='Geometric', share=0.5), 'schedule').ratios(0.3) == [0.3]


def test_cubic():
    ratios = build(SCHEDULES, dict(type='Cubic', rounds=4), 'schedule').ratios(0.8)
    # s_f + (s_i - s_f) (1 - t / n) ** 3 with s_i = 0
    expected = [0.8 - 0.8 * left**3 for left in (0.75, 0.5, 0.25, 0)]
    assert ratios == pytest.approx(expected)
    assert ratios == pytest.approx([0.4625, 0.7, 0.7875, 0.8])


def test_steps_bring_their_own_target_data_and_training():
    made = pruner(
        schedule=dict(
            type='Steps', ratios=[0.5, 0.7, 0.9], calibration=[{}, dict(num_samples=5), {}],
            recovery=[dict(epochs=1), {}, dict(epochs=9, lr=1e-5)],
        ),
        calibration=dict(num_samples=3, seed=7), recovery=dict(mode='retrain', epochs=2),
    )  # fmt: skip
    assert made.budget.ratio == 0.9
    assert [r.ratio for r in made.rounds] == [0.5, 0.7, 0.9]
    assert [(r.calibration.num_samples, r.calibration.seed) for r in made.rounds] == [
        (3, 7), (5, 7), (3, 7),
    ]  # fmt: skip
    assert [(r.recovery.mode, r.recovery.epochs, r.recovery.lr) for r in made.rounds] == [
        ('retrain', 1, None), ('retrain', 2, None), ('retrain', 9, 1e-5),
    ]  # fmt: skip
    assert pruner(0.9, dict(type='Steps', ratios=[0.5, 0.9])).budget.ratio == 0.9


def test_the_learning_rate_decays_from_round_to_round():
    made = pruner(0.27, dict(type='Geometric', lr_decay=0.5))
    assert [r.lr_scale for r in made.rounds] == [1, 0.5, 0.25]
    constant = pruner(0.27, dict(type='Geometric'))
    assert [r.lr_scale for r in constant.rounds] == [1, 1, 1]
    assert scaled_lr(RecoverySettings(), 0.5).lr_factor == 0.05
    assert scaled_lr(RecoverySettings(lr=1e-4), 0.5).lr == 5e-5
    assert scaled_lr(RecoverySettings(lora=dict(lr=1e-4)), 0.5).lora == dict(lr=5e-5)


def test_one_shot_is_no_rounds():
    assert not pruner(0.3).in_rounds
    assert [r.ratio for r in pruner(0.3).rounds] == [0.3]
    assert pruner(0.3, dict(type='Cubic', rounds=1)).in_rounds


STEPS = dict(type='Steps', ratios=[0.5, 0.9])


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(budget=dict(ratio=0.8), schedule=STEPS),
         "prune_cfg.schedule.ratios ends with 0.9, but the budget's ratio is 0.8"),
        (dict(budget=dict(density=0.2), schedule=STEPS),
         "prune_cfg.schedule.ratios ends with 0.9, but the budget's ratio is 0.8"),
        (dict(schedule=dict(type='Steps', ratios=[0.5, 0.5])), 'must be larger than the one before'),
        (dict(schedule=dict(type='Steps', ratios=[])), 'prune_cfg.schedule.ratios is .*one entry'),
        (dict(schedule=dict(type='Steps', ratios=[0.5, 1.0])), r'schedule.ratios\[1\] is 1.0'),
        (dict(schedule={**STEPS, 'recovery': [dict(epochs=1)]}),
         'prune_cfg.schedule.recovery has 1 entries for 2 ratios'),
        (dict(schedule={**STEPS, 'calibration': [{}, 3]}), r'schedule.calibration\[1\] is 3'),
        (dict(schedule={**STEPS, 'calibration': [{}, dict(samples=3)]}),
         r'prune_cfg.schedule.calibration\[1\].samples is not a key'),
        (dict(schedule={**STEPS, 'recovery': [{}, dict(epochs=0)]}),
         r'prune_cfg.schedule.recovery\[1\].epochs is 0'),
        (dict(budget=dict(ratio=0.9), schedule=dict(type='Geometric', max_rounds=21)),
         'prune_cfg.schedule.max_rounds is 21, but ratio 0.9 with share 0.1 takes 22 rounds'),
        (dict(schedule=dict(type='Geometric', share=1)), r'share is 1; it must be a number in \(0, 1'),
        (dict(schedule=dict(type='Geometric', lr_decay=0)), 'prune_cfg.schedule.lr_decay is 0'),
        (dict(schedule=dict(type='Geometric', lr_decay=True)), 'prune_cfg.schedule.lr_decay is True'),
        (dict(schedule=dict(type='Geometric', rewind='start')), "rewind is 'start'; valid are None"),
        (dict(schedule=dict(type='Cubic')), 'prune_cfg.schedule.rounds is missing'),
        (dict(schedule=dict(type='Cubic', rounds=0)), 'prune_cfg.schedule.rounds is 0'),
        (dict(schedule=dict(type='Geometric'), sparsifier=dict(type='Magnitude', pattern='2:4')),
         "prune_cfg.schedule.type is 'Geometric', but a pattern has one ratio"),
    ],
)  # fmt: skip
def test_bad_schedules_are_named(cfg, message):
    with pytest.raises(UserError, match=message):
        WeightPruner(**cfg)


def test_a_structured_pruner_in_rounds_needs_the_loop():
    made = StructuredPruner(schedule=dict(type='Geometric'))
    with pytest.raises(UserError, match="schedule.type='Geometric' .*IterativePruneLoop"):
        made.check_without_loop()
    StructuredPruner().check_without_loop()


@pytest.mark.parametrize(
    ('keys', 'word'),
    [
        (dict(penalty=dict(type='RSST')), r"penalty\.type='RSST'"),
        (dict(fillback_rate=0.5), r'fillback_rate=0\.5'),
    ],
)
def test_what_only_the_loop_does(keys, word):
    with pytest.raises(UserError, match=f'prune_cfg.{word} needs .*IterativePruneLoop'):
        StructuredPruner(**keys).check_without_loop()


@pytest.mark.parametrize('rounds', [1, 2, 15])
def test_geometric_by_rounds(rounds):
    """Equal shares of what remains, up to the budget's ratio; or a share, and the target follows."""
    ratios = Geometric(rounds=rounds).ratios(0.7)
    assert len(ratios) == rounds and ratios[-1] == 0.7
    left = [1.0, *(1 - ratio for ratio in ratios)]
    assert [b / a for a, b in zip(left, left[1:], strict=False)] == pytest.approx(
        [0.3 ** (1 / rounds)] * rounds
    )
    made = WeightPruner(schedule=dict(type='Geometric', share=0.2, rounds=rounds))
    assert made.budget.ratio == pytest.approx(1 - 0.8**rounds)
    assert len(made.rounds) == rounds
    with pytest.raises(UserError, match='leave one of the three out'):
        WeightPruner(schedule=dict(type='Geometric', share=0.2, rounds=2), budget=dict(ratio=0.7))

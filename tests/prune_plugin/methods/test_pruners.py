"""``prune_cfg``: every key is checked before anything is built or touched."""

import json
import re
from copy import deepcopy
from fractions import Fraction

import numpy as np
import pytest
from cases import BY_NAME
from mmengine.config import Config, ConfigDict

from projects.prune_plugin import StructuredPruner, UserError, WeightPruner, build_pruner
from projects.prune_plugin.training.config_edits import settings_for
from projects.prune_plugin.training.settings import RecoverySettings
from projects.prune_plugin.workflows.prune import pruner_from_config

BAD = [
    (dict(ratio=0.3), r'prune_cfg\.ratio is not a key of StructuredPruner; valid are units, crit'),
    (dict(type='Pruner'), "prune_cfg.type is 'Pruner'; valid are StructuredPruner, WeightPruner"),
    (dict(units='heads'), "prune_cfg.units is 'heads'; it must be a non-empty list of dicts"),
    (dict(units=[]), r'prune_cfg.units is \[\]; it must be a non-empty list'),
    (dict(units=dict(type='FFNNeurons')), 'prune_cfg.units is .* it must be a non-empty list'),
    (dict(units=['FFNNeurons']), r"prune_cfg.units\[0\] is 'FFNNeurons'; it must be a dict"),
    (dict(units=[dict(type='Fins')]), r"prune_cfg.units\[0\].type is 'Fins'; valid are"),
    (dict(include=[]), r'prune_cfg.include is \[\]; it must be a non-empty list of regular expr'),
    (dict(include='.*'), r"prune_cfg.include is '\.\*'; it must be a list of regular expr"),
    (dict(exclude=['(']), r"prune_cfg.exclude: '\(' is no regular expression"),
    (dict(exclude=[3]), 'prune_cfg.exclude: 3 is no regular expression'),
    (dict(min_keep=-1), 'prune_cfg.min_keep is -1; it must be a whole number >= 0'),
    (dict(min_keep=0.5), 'prune_cfg.min_keep is 0.5'),
    (dict(min_keep=True), 'prune_cfg.min_keep is True'),
    (dict(round_to=-8), 'prune_cfg.round_to is -8; it must be a whole number >= 1'),
    (dict(round_to='8'), "prune_cfg.round_to is '8'"),
    (dict(budget=dict(type='weights')), "'weights', which a StructuredPruner can't use"),
    (
        dict(budget=dict(type=None, ratio=0.3)),
        'prune_cfg.budget.type is None; valid are flops, latency, metric, params',
    ),
    *(
        (dict(budget=dict(ratio=ratio)), rf'budget\.ratio is {ratio!r}.* in \(0, 1\)')
        for ratio in (0, 1, -1, True, 'a')
    ),
    (dict(budget=0.3), 'prune_cfg.budget is 0.3; it must be a dict'),
    (dict(allocator=dict(type='Best')), "prune_cfg.allocator.type is 'Best'; valid are Global, Kn"),
    (dict(schedule=dict(type='Twice')), "prune_cfg.schedule.type is 'Twice'; valid are Cubic, Geo"),
    (
        dict(calibration=dict(samples=3)),
        'prune_cfg.calibration.samples is not a key; valid are num',
    ),
    (
        dict(calibration=dict(loss_weights=dict(planning=2.0))),
        'loss_weights does nothing for L1, which reads no gradients',
    ),
    (
        dict(criterion=dict(type='Taylor'), calibration=dict(loss_weights=dict(planning=-1))),
        'calibration.loss_weights.planning is -1; it must be a number >= 0',
    ),
    (
        dict(criterion=dict(type='Taylor'), calibration=dict(loss_weights=[1])),
        r'calibration.loss_weights is \[1\]; it must be a dict',
    ),
    (dict(calibration=dict(recalibrate_bn=-1)), 'recalibrate_bn is -1; it must be'),
    (dict(recovery=dict(max_keep_ckpts=0)), 'max_keep_ckpts is 0; it must be at least 1'),
    (dict(calibration=dict(num_samples=0)), 'prune_cfg.calibration.num_samples is 0; it must be'),
    (dict(calibration=[1]), r'prune_cfg.calibration is \[1\]; it must be a dict'),
    (dict(recovery=dict(mode='rest')), "recovery.mode is 'rest'; valid are fine_tune, retrain"),
    (
        dict(recovery=dict(epochs=0)),
        'prune_cfg.recovery.epochs is 0; it must be a whole number >= 1',
    ),
    (
        dict(recovery=dict(lr_factor=0)),
        'prune_cfg.recovery.lr_factor is 0; it must be a number > 0',
    ),
    (dict(recovery=dict(lr_factor='x')), "prune_cfg.recovery.lr_factor is 'x'"),
    (dict(recovery=dict(warmup_iters=-1)), 'prune_cfg.recovery.warmup_iters is -1'),
    (
        dict(recovery=dict(lr_schedule='step')),
        "prune_cfg.recovery.lr_schedule is 'step'; valid are cosine",
    ),
    (dict(profile=dict(threads=2)), 'prune_cfg.profile.threads is not a key; valid are batch_size'),
    (dict(profile=dict(batch_size=0)), 'prune_cfg.profile.batch_size is 0'),
    (dict(profile=dict(seconds='long')), "prune_cfg.profile.seconds is 'long'"),
    (dict(profile=dict(input_shape=3)), 'prune_cfg.profile.input_shape is 3'),
    (dict(profile=dict(input_shape=(3, 0, 32))), 'prune_cfg.profile.input_shape is '),
]


@pytest.mark.parametrize(('cfg', 'message'), BAD, ids=[str(cfg) for cfg, _ in BAD])
def test_bad_configs_are_named_in_one_sentence(cfg, message):
    with pytest.raises(UserError, match=message) as refused:
        pruner = build_pruner(cfg)
        pruner.plan(BY_NAME['vit'].dense())  # what only the model shows
    assert '\n' not in str(refused.value)


def test_a_ratio_alone_is_a_budget():
    assert build_pruner(dict(budget=dict(ratio=0.4))).asked == {'budget': 'params', 'ratio': 0.4}
    weights = build_pruner(dict(type='WeightPruner', budget=dict(ratio=0.4)))
    assert weights.asked == {'budget': 'weights', 'ratio': 0.4}


@pytest.mark.parametrize('given', [None, [], 'params', 0.3])
def test_what_is_no_dict_is_refused(given):
    with pytest.raises(
        UserError, match=rf'prune_cfg is {re.escape(repr(given))}; it must be a dict'
    ):
        build_pruner(given)


@pytest.mark.parametrize('ratio', [np.float32(0.25), np.float64(0.25), Fraction(1, 4)])
def test_a_ratio_may_be_any_real_number(ratio):
    pruner = build_pruner(dict(budget=dict(type='params', ratio=ratio)))
    assert budget_of(pruner) == ('ParamsBudget', 0.25)
    assert budget_of(build_pruner(pruner.to_dict())) == budget_of(pruner)
    layers = build_pruner(dict(type='WeightPruner', layer_ratios={'a': ratio}))
    assert layers.layer_ratios == {'a': 0.25}


def test_defaults():
    pruner = build_pruner({})
    assert isinstance(pruner, StructuredPruner)
    assert pruner.asked == {'budget': 'params', 'ratio': 0.3}
    assert type(pruner.criterion).__name__ == 'L1'
    assert type(pruner.allocator).__name__ == 'Knapsack'
    assert (pruner.min_keep, pruner.round_to, pruner.finders) == (1, 1, None)
    assert pruner.calibration.num_samples == 128
    assert (pruner.recovery.lr_factor, pruner.recovery.warmup_iters) == (0.1, 500)
    assert isinstance(build_pruner(dict(type='WeightPruner')), WeightPruner)


def test_building_twice_shares_nothing():
    cfg = dict(include=['.*'], budget=dict(type='params', ratio=0.4))
    one, two = build_pruner(cfg), build_pruner({})
    one.include.append('x')
    assert two.include == ['.*'] and cfg['include'] == ['.*']
    assert two.budget.ratio == 0.3


def test_recovery_modes():
    fine, again = RecoverySettings(), RecoverySettings('retrain')
    assert (fine.lr_factor, fine.warmup_iters) == (0.1, 500)
    assert (again.lr_factor, again.warmup_iters) == (0.5, 1000)
    own = RecoverySettings('fine_tune', 3, lr_factor=0.2, warmup_iters=7)
    kept = settings_for(own, retrain=False, epochs=None)
    assert (kept.mode, kept.epochs, kept.lr_factor, kept.warmup_iters) == ('fine_tune', 3, 0.2, 7)
    other = settings_for(own, retrain=True, epochs=9)
    assert (other.mode, other.epochs, other.lr_factor) == ('retrain', 9, 0.5)


def test_planning_changes_nothing():
    case = BY_NAME['vit']
    model = case.dense().train()
    before = {name: (t, t.clone()) for name, t in model.state_dict(keep_vars=True).items()}
    plan = StructuredPruner(case.units, budget=dict(type='params', ratio=0.4)).plan(model)
    after = model.state_dict(keep_vars=True)
    assert all(after[n] is t and after[n].equal(copy) for n, (t, copy) in before.items())
    assert model.training
    assert set(plan.seconds) == {'discover', 'calibrate', 'score', 'allocate'}
    assert plan.state.asked == {'budget': 'params', 'ratio': 0.4}


def test_scores_from_a_table_replace_the_criterion():
    case = BY_NAME['vit']
    direct = StructuredPruner(case.units, dict(type='L2')).plan(case.dense())
    pruner = StructuredPruner(case.units, dict(type='Taylor'))  # would need data
    assert (
        pruner.plan(case.dense(), table=direct.importance).state.digest() == direct.state.digest()
    )


def budget_of(pruner) -> tuple[str, float | None]:
    return type(pruner.budget).__name__, pruner.budget.ratio


@pytest.mark.parametrize(
    'cfg',
    [
        dict(),
        dict(budget=dict(type='units', ratio=0.4), exclude=['a.*'], min_keep=2),
        dict(criterion=ConfigDict(type='Taylor', order=2), profile=dict(input_shape=(3, 8, 8))),
        dict(type='WeightPruner', budget=dict(density=0.1), layer_ratios={'.*fc1': 0.2}),
        dict(budget=dict(type='metric', metric='NDS', max_drop=0.01)),
    ],
)
def test_a_pruner_writes_itself_back(cfg):
    written = build_pruner(cfg).to_dict()
    assert json.loads(json.dumps(written)) == written  # plain data
    assert written == {'type': 'StructuredPruner', **json.loads(json.dumps(cfg))}
    again = build_pruner(written)
    assert again.to_dict() == written and budget_of(again) == budget_of(build_pruner(cfg))
    written['budget'] = None  # a copy
    assert build_pruner(cfg).to_dict() != written


@pytest.mark.parametrize(
    ('budget', 'block'),
    [
        (dict(type='units', ratio=0.4), dict(type='units', ratio=0.25)),
        (dict(density=0.1), dict(ratio=0.25)),
        (dict(), dict(ratio=0.25)),
        (dict(type='metric', metric='a', max_drop=1), dict(type='params', ratio=0.25)),
        (
            dict(type='metric', metric='a', max_drop=1, of=dict(type='latency', points=3)),
            dict(type='latency', points=3, ratio=0.25),
        ),
    ],
)
def test_another_ratio_is_written_too(budget, block):
    pruner = build_pruner(dict(budget=budget))
    other = pruner.at(0.25)
    assert other.to_dict()['budget'] == block and pruner.to_dict()['budget'] == budget
    assert budget_of(build_pruner(other.to_dict())) == budget_of(other)
    assert other.asked == {'budget': other.budget.quantity, 'ratio': 0.25}


def test_the_ratio_of_the_command_line_is_written():
    cfg = Config(dict(prune_cfg=dict(budget=dict(type='flops', ratio=0.1), min_keep=3)))
    written = pruner_from_config(cfg, 0.25).to_dict()
    assert written['budget'] == {'type': 'flops', 'ratio': 0.25} and written['min_keep'] == 3
    assert pruner_from_config(Config(), 0.25).to_dict() == {
        'type': 'StructuredPruner', 'budget': {'ratio': 0.25},
    }  # fmt: skip
    assert cfg.prune_cfg.budget.ratio == 0.1


def test_a_ratio_of_the_command_line_beside_a_density_is_no_one_knows_what():
    cfg = Config(dict(prune_cfg=dict(budget=dict(density=0.1))))
    with pytest.raises(
        UserError, match=r'0\.1 is the fraction removed, and .*0\.1 the fraction kept'
    ):
        pruner_from_config(cfg, 0.1)


def test_a_pruner_made_by_hand_writes_itself_too():
    made = StructuredPruner([dict(type='FFNNeurons')], budget=dict(type='params', ratio=0.2))
    assert made.to_dict() == dict(
        type='StructuredPruner', units=[dict(type='FFNNeurons')],
        budget=dict(type='params', ratio=0.2),
    )  # fmt: skip
    assert deepcopy(made).to_dict() == made.to_dict()


@pytest.mark.parametrize(
    ('cfg', 'key'),
    [
        (dict(fillback_rate=0.1), 'fillback_rate=0.1'),
        (dict(penalty=dict(type='RSST', strength=1.0)), "penalty.type='RSST'"),
    ],
)
def test_what_only_a_training_can_follow_is_no_plan(cfg, key):
    with pytest.raises(UserError, match=f'prune_cfg.{key} needs train_cfg'):
        build_pruner(cfg).plan(BY_NAME['vit'].dense())

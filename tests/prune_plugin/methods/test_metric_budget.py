"""The settings of a metric budget: names, directions, limits, and what doesn't go together."""

import pytest
import toy
from mmengine.config import Config

from projects.prune_plugin import StructuredPruner, UserError, WeightPruner, build_pruner
from projects.prune_plugin.evaluation.metrics import better_direction, resolve_metric
from projects.prune_plugin.methods.budgets.metric import MetricBudget, within, worse_by
from projects.prune_plugin.workflows.options import PruneOptions
from projects.prune_plugin.workflows.plan_on_meta import plan_on_meta
from projects.prune_plugin.workflows.prune import pruner_from_config

VAD = {
    'pts_bbox_NuScenes/mAP': 0.3,
    'pts_bbox_NuScenes/NDS': 0.4,
    'NuscMap_chamfer/mAP': 0.5,
    'planning/plan_L2_3s': 1.1,
    'loss': 2.0,
}
METRIC = dict(type='metric', metric='NDS', max_drop=0.01)


@pytest.mark.parametrize(
    ('metric', 'name'),
    [
        ('NDS', 'pts_bbox_NuScenes/NDS'),
        ('NuscMap_chamfer/mAP', 'NuscMap_chamfer/mAP'),
        ('plan_L2_3s', 'planning/plan_L2_3s'),
        ('loss', 'loss'),
    ],
)
def test_a_metric_may_be_named_by_its_end(metric, name):
    assert resolve_metric(metric, VAD, 'key') == name


@pytest.mark.parametrize(
    ('metric', 'message'),
    [
        ('mAP', 'matches pts_bbox_NuScenes/mAP and NuscMap_chamfer/mAP; name one of them'),
        ('DS', 'no such result; valid are pts_bbox_NuScenes/mAP, pts_bbox_NuScenes/NDS, Nusc'),
        ('nds', 'valid are'),
        ('L2_3s', 'valid are'),
    ],
)
def test_other_names_are_refused(metric, message):
    with pytest.raises(UserError, match=f'^key is {metric!r}.*{message}'):
        resolve_metric(metric, VAD, 'key')


@pytest.mark.parametrize(
    ('name', 'better'),
    [
        ('accuracy/top1', 'max'),
        ('coco/bbox_mAP_50', 'max'),
        ('NuScenes metric/pred_instances_3d_NuScenes/NDS', 'max'),
        ('pts_bbox_NuScenes/car_trans_err', 'min'),
        ('pts_bbox_NuScenes/mATE', 'min'),
        ('ppl/perplexity', 'min'),
        ('loss', 'min'),
        ('motion/minADE_car', 'min'),
        ('planning/plan_obj_col_3s', 'min'),
        ('loss_study/accuracy', 'max'),
        ('ECE', 'min'),
        ('glossary', 'max'),
    ],
)
def test_direction_by_name(name, better):
    assert better_direction(name, [], {name: 1.0}) == better


def test_what_a_metric_class_declares_comes_first():
    pytest.importorskip('mmdet3d')
    import projects.vad  # noqa: F401

    metrics = [dict(type='VADMotionMetric')]
    names = {'motion/EPA_car': 0.1, 'motion/minADE_car': 0.2}
    assert [better_direction(name, metrics, names) for name in names] == ['max', 'min']


def test_limits():
    point = MetricBudget('x', 1.0)
    assert (point.limit(90.0, 'max'), point.limit(20.0, 'min')) == (89.0, 21.0)
    tenth = MetricBudget('x', 0.1, relative=True)
    assert (tenth.limit(90.0, 'max'), tenth.limit(20.0, 'min')) == (81.0, 22.0)
    assert tenth.limit(-5.0, 'max') == -5.5
    assert (worse_by(90, 88, 'max'), worse_by(90, 88, 'min')) == (2, -2)


def test_a_drop_that_equals_the_limit_but_for_rounding_holds():
    dense, value = 35 / 36 * 100, 35 / 36 * 100 - 1.0
    limit = MetricBudget('x', 1.0).limit(dense, 'max')
    assert within(limit, dense, value - 1e-13, 'max') and within(limit, dense, value, 'max')
    assert not within(limit, dense, value - 1e-3, 'max')
    assert within(21.0, 20.0, 21.0 + 1e-13, 'min') and not within(21.0, 20.0, 21.001, 'min')
    assert not within(0.0, 1.0, None, 'max')


def test_the_budget_with_a_ratio_is_the_one_it_is_of():
    pruner = StructuredPruner(budget={**METRIC, 'of': dict(type='latency', points=3)})
    own = pruner.at(0.4).budget
    assert (type(own).__name__, own.ratio, own.points) == ('LatencyBudget', 0.4, 3)
    assert pruner.at(0.4).asked == {'budget': 'latency', 'ratio': 0.4}
    assert pruner.budget.searched and pruner.budget.ratio is None


def test_it_is_of_the_pruner_s_own_quantity():
    assert StructuredPruner(budget=METRIC).at(0.2).asked['budget'] == 'params'
    assert StructuredPruner(budget={**METRIC, 'of': 'units'}).at(0.2).asked['budget'] == 'units'
    assert WeightPruner(budget=METRIC).at(0.2).asked['budget'] == 'weights'


BAD = [
    (dict(metric=''), 'prune_cfg.budget.metric is '),
    (dict(max_drop='x'), "prune_cfg.budget.max_drop is 'x'; it must be a number >= 0"),
    (dict(max_drop=-0.1), 'prune_cfg.budget.max_drop is -0.1'),
    (dict(max_drop=float('nan')), 'prune_cfg.budget.max_drop is nan'),
    (dict(relative='yes'), "prune_cfg.budget.relative is 'yes'; it must be True or False"),
    (dict(relative=1), 'prune_cfg.budget.relative is 1'),
    (dict(lower_is_better=0), 'prune_cfg.budget.lower_is_better is 0; it must be None or True or'),
    (dict(low=0), 'prune_cfg.budget.low is 0'),
    (dict(high=1.0), 'prune_cfg.budget.high is 1.0'),
    (dict(low=0.6, high=0.5), 'low is 0.6 and high is 0.5'),
    (dict(tolerance=0), 'prune_cfg.budget.tolerance is 0; it must be a number > 0'),
    (dict(trials=1), 'prune_cfg.budget.trials is 1; it must be a whole number >= 2'),
    (dict(num_samples=0), 'prune_cfg.budget.num_samples is 0'),
    (dict(split='train'), "prune_cfg.budget.split is 'train'; valid are test, val"),
    (dict(of='metric'), "prune_cfg.budget.of is 'metric'; valid are flops, latency, params, units"),
    (dict(of=['params']), r"prune_cfg.budget.of is \['params'\]; it must be a dict"),
    (dict(of=dict(ratio=0.3, type='params')), 'prune_cfg.budget.of.ratio is 0.3, but'),
    (dict(of=dict(type='latency', points=1)), 'points is 1'),
    (dict(of='weights'), "prune_cfg.budget.of is 'weights', which a StructuredPruner can't use"),
    (dict(ratio=0.3), r'prune_cfg.budget.ratio=0.3 \(or --pruning-ratio\) does not go with'),
    (dict(density=0.3), 'prune_cfg.budget.ratio=0.7'),
    (dict(drop=0.3), 'prune_cfg.budget.drop is not a key of metric; valid are metric, max_drop'),
]


@pytest.mark.parametrize(('more', 'message'), BAD, ids=[str(more) for more, _ in BAD])
def test_bad_settings(more, message):
    with pytest.raises(UserError, match=message):
        build_pruner(dict(budget={**METRIC, **more}))


@pytest.mark.parametrize(
    ('prune_cfg', 'message'),
    [
        (dict(budget=dict(type='metric', metric='NDS')), 'prune_cfg.budget.max_drop is missing'),
        (dict(criterion=dict(type='Remain')), 'Remain scores by the ratio, which'),
        (dict(schedule=dict(type='Cubic', rounds=3)), "schedule.type 'Cubic' does not go with"),
        (
            dict(type='WeightPruner', schedule=dict(type='Steps', ratios=[0.3, 0.5])),
            "schedule.type 'Steps' does not go with",
        ),
        (
            dict(type='WeightPruner', sparsifier=dict(type='Magnitude', pattern='2:4')),
            'a pattern has one ratio',
        ),
        (
            dict(type='WeightPruner', budget={**METRIC, 'of': 'params'}),
            "prune_cfg.budget.of is 'params'; a WeightPruner's is 'weights'",
        ),
    ],
)
def test_what_does_not_go_together(prune_cfg, message):
    with pytest.raises(UserError, match=message):
        build_pruner({'budget': METRIC, **prune_cfg})


def test_a_ratio_on_the_command_line_is_refused():
    with pytest.raises(UserError, match='--pruning-ratio'):
        pruner_from_config(Config(dict(prune_cfg=dict(budget=METRIC))), 0.3)


def test_a_loop_of_rounds_and_a_plan_by_shapes_are_refused(tmp_path):
    loop = dict(type='IterativePruneLoop', max_epochs=1)
    runner = toy.runner(tmp_path, train_cfg=loop, cfg=Config(dict(prune_cfg=dict(budget=METRIC))))
    with pytest.raises(UserError, match="budget.type is 'metric', which looks for one ratio"):
        runner.train()
    cfg = Config(dict(model=dict(toy.MODEL)))
    with pytest.raises(UserError, match='--meta: .* evaluates models'):
        plan_on_meta(cfg, build_pruner(dict(budget=METRIC)), PruneOptions(None, tmp_path), False)


def test_a_notebook_is_told_where_the_search_is():
    model = toy.MODELS.build(dict(toy.MODEL))
    with pytest.raises(UserError, match=r'takes tools/analysis_struct.py or tools/train.py'):
        build_pruner(dict(budget=METRIC)).plan(model)

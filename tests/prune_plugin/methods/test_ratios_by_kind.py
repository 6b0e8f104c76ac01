"""Heads and neurons at different ratios: in one run, in every schedule, and through the tools' path."""

import pytest
from cases import BY_NAME
from mmengine.config import Config

from projects.prune_plugin import UserError, build_pruner
from projects.prune_plugin.workflows.prune import pruner_from_config


def left(plan) -> dict[str, tuple[int, int]]:
    """Units kept and units in all, by kind."""
    found: dict[str, tuple[int, int]] = {}
    for group in plan.groups:
        kept, size = found.get(group.kind, (0, 0))
        found[group.kind] = kept + len(plan.state.kept[group.name]), size + group.size
    return found


@pytest.mark.parametrize('allocator', ['Uniform', 'Knapsack', 'Global'])
def test_each_kind_gets_its_own(allocator):
    budget = dict(type='units', ratio=dict(attention=0.5, mlp=0.25))
    pruner = build_pruner(dict(budget=budget, allocator=dict(type=allocator)))
    plan = pruner.plan(BY_NAME['vit'].dense())
    for kind, ratio in (('attention', 0.5), ('mlp', 0.25)):
        kept, size = left(plan)[kind]
        assert kept == int(size * (1 - ratio)), kind
    assert pruner.budget.asked['ratios'] == dict(attention=0.5, mlp=0.25)
    assert pruner.to_dict()['budget'] == budget


def test_a_kind_that_is_not_named_stays():
    pruner = build_pruner(dict(budget=dict(type='units', ratio=dict(mlp=0.5))))
    plan = pruner.plan(BY_NAME['vit'].dense())
    assert left(plan)['attention'][0] == left(plan)['attention'][1]
    assert left(plan)['mlp'][0] == left(plan)['mlp'][1] // 2


@pytest.mark.parametrize(
    'schedule',
    [
        dict(type='Steps', ratios=[0.2, 0.4]), dict(type='Geometric', share=0.2),
        dict(type='Cubic', rounds=3),
    ],
    ids=lambda schedule: schedule['type'],
)  # fmt: skip
def test_in_rounds_all_approach_theirs_alike(schedule):
    pruner = build_pruner(
        dict(budget=dict(type='units', ratio=dict(attention=0.4, mlp=0.2)), schedule=schedule)
    )
    for round_ in pruner.rounds:
        ratios = pruner.at(round_.ratio).budget.asked['ratios']
        assert ratios['attention'] == pytest.approx(round_.ratio)
        assert ratios['mlp'] == pytest.approx(round_.ratio / 2)
    assert pruner.rounds[-1].ratio == pytest.approx(0.4)


@pytest.mark.parametrize(
    ('ratio', 'message'),
    [
        ({}, 'is an empty dict; name kinds of units'),
        (dict(mlp=1.5), r'ratio\.mlp is 1\.5; it must be in'),
        (dict(mlp='x'), r"ratio\.mlp is 'x'; it must be a number"),
        (dict(heads=0.5), r'ratio\.heads: no units are of this kind; here are attention, mlp'),
    ],
)
def test_bad_ones_are_named(ratio, message):
    with pytest.raises(UserError, match=message):
        build_pruner(dict(budget=dict(type='units', ratio=ratio))).plan(BY_NAME['vit'].dense())


def test_the_command_line_overrides_them_all():
    cfg = Config(dict(prune_cfg=dict(budget=dict(type='units', ratio=dict(mlp=0.5)))))
    assert pruner_from_config(cfg, 0.25).budget.asked == {'budget': 'units', 'ratio': 0.25}

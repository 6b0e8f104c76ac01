"""Scoring again in steps, without training: against the steps taken one by one, and over the matrix."""

import pytest
import torch
import toy
from cases import BY_NAME, flat
from test_least_squares import data_of, run

from projects.prune_plugin import StructuredPruner, UserError, build_pruner, mask
from projects.prune_plugin.methods.compensation import LeastSquares
from projects.prune_plugin.methods.pruners.layer_progress import LayerProgress

RATIOS = [0.15, 0.3, 0.45]
REFIT = dict(type='LeastSquares', damping=0.1, dense_targets=0.5)


def loss(model, batch):
    return flat(model(*batch)).square().mean()


def pruner_of(case, ratio=RATIOS[-1], ratios=tuple(RATIOS[:-1]), **more) -> StructuredPruner:
    cfg = dict(
        units=list(case.units), criterion=dict(type='Fisher'), budget=dict(type='params', ratio=ratio),
        compensation=REFIT, weight_level=False, rescoring=dict(ratios=list(ratios)),
    )  # fmt: skip
    return build_pruner({**cfg, **more})


def by_hand(case, data, ratios) -> tuple[dict, torch.nn.Module]:
    """The steps, each written out: kept units by group, and the refitted model with its zeros."""
    dense = case.dense()
    groups, _ = pruner_of(case).discover(dense)
    kept = {group.name: torch.arange(group.size) for group in groups}
    model = dense
    for ratio in ratios:
        one = pruner_of(case, ratio, rescoring=None)
        scores = one.scores(model, groups, data, loss)
        for group, score in zip(groups, scores, strict=True):
            gone = torch.ones(group.size, dtype=torch.bool)
            gone[kept[group.name]] = False
            score[gone] = -1e9  # goes before anything else
        chosen = one.allocate(dense, groups, scores)
        for group, units in zip(groups, chosen, strict=True):
            assert set(units.tolist()) <= set(kept[group.name].tolist())
            kept[group.name] = units
        state = one.state_of(dense, groups, list(kept.values()))
        model = case.dense()
        LeastSquares(0.1, dense_targets=0.5).apply(model, state, data, run)
        mask(model, state)
    return kept, model


@pytest.mark.parametrize('family', ['vit', 'llama-gqa'])
def test_steps_are_those_taken_one_by_one(family):
    case = BY_NAME[family]
    data, pruner = data_of(case), pruner_of(case)
    dense = case.dense()
    plan = pruner.plan(dense, data, loss=loss)
    assert all(torch.equal(w, v) for w, v in zip(
        dense.state_dict().values(), case.dense().state_dict().values(), strict=True))  # fmt: skip
    kept, expected = by_hand(case, data, RATIOS)
    assert all(torch.equal(units, plan.state.kept[name]) for name, units in kept.items())
    once = pruner_of(case, rescoring=None).plan(case.dense(), data, loss=loss)
    assert once.digest != plan.digest
    slimmed = pruner.apply(case.dense(), plan, data, run).model
    assert torch.allclose(case.run(slimmed), case.run(expected), atol=1e-5)


@pytest.mark.parametrize(
    ('family', 'criterion'),
    [('vit', 'L1'), ('llama-gqa', 'Fisher'), ('opt', 'Fisher'), ('llama-layers', 'Fisher')],
)
def test_nested_plans_are_those_of_their_own_runs(family, criterion, tmp_path):
    """From the same scores, with files and without; a smaller model has no units that a larger hasn't."""
    case = BY_NAME[family]
    data = data_of(case)
    more = dict(criterion=dict(type=criterion), rescoring=None)
    if family == 'llama-layers':
        more |= dict(compensation=None)
        ratios = [0.2, 0.4]
    else:
        ratios = RATIOS
    nested = pruner_of(case, budget=dict(type='params', ratios=ratios), **more)
    assert nested.nested == ratios and nested.budget.ratio == ratios[-1]
    scored = nested.score(case.dense(), data, loss=loss)
    scored.progress = LayerProgress(tmp_path, {'key': 1})
    before = None
    for i, ratio in enumerate(ratios):
        at = nested.at(ratio)
        plan = at.plan_from(case.dense(), scored)
        model = at.apply(case.dense(), plan, data, run, progress=scored.progress).model
        own = build_pruner(at.to_dict())
        assert (own.rescoring.ratios if own.rescoring else []) == ratios[:i]
        alone = own.plan(case.dense(), data, loss=loss)
        assert alone.digest == plan.digest
        again = own.apply(case.dense(), alone, data, run).model
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, again.state_dict()[name]), name
        if before:
            assert all(set(k.tolist()) <= set(before.kept[n].tolist())
                       for n, k in plan.state.kept.items())  # fmt: skip
        before = plan.state
    scored.progress.clear()
    assert not tmp_path.exists() or not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    'family', ['mmcv_decoder', 'torch_encoder', 'llama-4kv', 'opt-layers', 'mmcv_deformable']
)
def test_every_kind_of_units_goes_in_steps(family):
    """What is removed in two steps is what was asked, and its slim model computes what its mask does."""
    case = BY_NAME[family]
    budget = dict(type='units', ratio=0.5)
    pruner = pruner_of(
        case, rescoring=dict(steps=2), budget=budget, criterion=dict(type='L1'), compensation=None
    )
    plan = pruner.plan(case.dense())
    assert sum(map(len, plan.state.kept.values())) <= sum(g.size for g in plan.groups) / 2 + 1
    masked = mask(case.dense(), plan.state)
    slimmed = pruner.apply(case.dense(), plan).model
    assert torch.allclose(case.run(slimmed), case.run_masked(masked, plan.state), atol=1e-4)


def test_a_step_that_was_finished_is_not_taken_again(tmp_path, monkeypatch):
    case = BY_NAME['vit']
    data, pruner = data_of(case), pruner_of(case)
    dense = case.dense()

    def plan(limit=None):
        counts = dict(scores=0)
        scores, original = StructuredPruner.scores, StructuredPruner.scores

        def counted(self, *args, **keys):
            if counts['scores'] == limit:
                raise KeyboardInterrupt
            counts['scores'] += 1
            return scores(self, *args, **keys)

        monkeypatch.setattr(StructuredPruner, 'scores', counted)
        try:
            scored = pruner.score(dense, data, loss=loss)
            scored.progress = LayerProgress(tmp_path, {'key': 1})
            return pruner.plan_from(dense, scored), counts['scores']
        finally:
            monkeypatch.setattr(StructuredPruner, 'scores', original)

    with pytest.raises(KeyboardInterrupt):
        plan(limit=2)
    found, times = plan()
    assert times == 2  # the first, and the one that was broken off
    whole = pruner.plan(dense, data, loss=loss)
    assert found.digest == whole.digest
    for one, other in zip(found.importance, whole.importance, strict=True):
        assert torch.equal(one, other)


def test_one_step_is_scoring_once():
    case = BY_NAME['vit']
    data = data_of(case)
    plans = [
        pruner_of(case, rescoring=rescoring).plan(case.dense(), data, loss=loss)
        for rescoring in (dict(steps=1), None)
    ]
    assert plans[0].digest == plans[1].digest


BUDGET = dict(type='params', ratio=0.4)
SEARCHED = dict(type='metric', metric='a', max_drop=1)
TWO = dict(budget=BUDGET, rescoring=dict(steps=2))


@pytest.mark.parametrize(
    ('cfg', 'said'),
    [
        (dict(rescoring=dict(steps=0)), 'rescoring.steps is 0; it must be a whole number >= 1'),
        (dict(rescoring=dict(steps=2, ratios=[0.1])), 'give one of them'),
        (dict(rescoring={}), 'give one of them'),
        (dict(rescoring=dict(ratios=[0.2, 0.1])), 'each must be larger than the one before'),
        (dict(rescoring=dict(ratios=[0.1, 0.4])), 'ends with 0.4, but prune_cfg.budget.ratio is 0.4'),
        (dict(budget=dict(ratios=[])), 'budget.ratios is []; it must be a list'),
        (dict(budget=dict(ratios=0.3)), 'budget.ratios is 0.3; it must be a list'),
        (dict(budget=dict(ratios=[0.3, 0.2])), 'each must be larger than the one before'),
        (dict(budget=dict(ratios=[0.3, 0.3])), 'each must be larger than the one before'),
        (dict(budget=dict(ratios=[0.3, 1.0])), 'budget.ratios[1] is 1.0; it must be in (0, 1)'),
        (dict(budget=dict(ratios=[0, 0.2])), 'budget.ratios[0] is 0, which removes nothing'),
        (dict(budget=dict(ratios=['a'])), "budget.ratios[0] is 'a'; it must be a number in (0, 1)"),
        (dict(budget=dict(ratios=[0.2], ratio=0.2)), 'budget.ratio=0.2 (or --pruning-ratio) does not go'),
        (dict(budget=dict(ratios=[0.2], density=0.2)), 'budget.density=0.2 does not go with'),
        (dict(budget=dict(**SEARCHED, ratios=[0.2])), 'looks for a ratio itself'),
        (dict(budget=dict(ratios=[0.2]), rescoring=dict(steps=2)), 'which are the steps'),
        (dict(budget=dict(ratios=[0.2, 0.3]), execution=dict(mode='streamed')), "take mode='memory'"),
        (dict(**TWO, execution=dict(mode='streamed')), "'streamed'"),
        (dict(**TWO, schedule=dict(type='Cubic', rounds=2)), 'OneShot'),
        (dict(**TWO, penalty=dict(type='RSST')), 'prune_cfg.penalty'),
        (dict(budget=SEARCHED, rescoring=dict(steps=2)), 'which has yet to find its ratio'),
        (dict(**TWO, fillback_rate=0.1), 'prune_cfg.fillback_rate'),
        (dict(**TWO, criterion=dict(type='Remain')), 'scores by the ratio'),
        (dict(type='WeightPruner', budget=dict(ratios=[0.2])), 'goes with a StructuredPruner'),
        (dict(type='WeightPruner', rescoring=dict(steps=2)), 'rescoring'),
    ],
)  # fmt: skip
def test_what_is_refused(cfg, said):
    with pytest.raises(UserError) as caught:
        build_pruner({**({} if 'budget' in cfg else dict(budget=BUDGET)), **cfg})
    assert said in str(caught.value), caught.value


def test_tables_and_loops_are_refused():
    case = BY_NAME['vit']
    pruner = pruner_of(case, criterion=dict(type='L1'), compensation=None)
    table = pruner.scores(case.dense(), case.groups())
    with pytest.raises(UserError, match='no table .* holds its scores'):
        pruner.plan(case.dense(), table=table)
    with pytest.raises(UserError, match='an IterativePruneLoop trains; leave one out'):
        pruner.select(case.dense())


def test_a_budget_that_cannot_be_met_is_refused_before_the_steps(monkeypatch):
    case = BY_NAME['vit']
    pruner = pruner_of(case, 0.99, (0.2,), criterion=dict(type='L1'), compensation=None)
    monkeypatch.setattr(StructuredPruner, 'at', None)  # no step begins
    with pytest.raises(UserError, match='at most .* can be removed'):
        pruner.plan(case.dense())


def test_units_of_a_toy_go_in_the_order_of_their_last_scores():
    """Two neurons that do the same: once one is gone, the other counts double, and another goes next."""
    model = toy.MODELS.build(dict(type='ToyModel', hidden=4)).eval()
    pruner = build_pruner(dict(
        criterion=dict(type='L2', parts='out'), budget=dict(type='units', ratio=0.5),
        rescoring=dict(steps=2), compensation=dict(type='LeastSquares', damping=1e-4),
        calibration=dict(num_samples=24),
    ))  # fmt: skip
    with torch.no_grad():
        fc1, fc2 = model.mlp.fc1, model.mlp.fc2
        fc1.weight[1], fc1.bias[1] = fc1.weight[0], fc1.bias[0]
        for unit, size in enumerate((1.0, 1.01, 1.5, 9.0)):
            fc2.weight[:, unit] = size / 3**0.5
    batches = [toy.ToyData().inputs]

    def run_toy(model, batch):
        model(batch)
        return torch.zeros(())

    plan = pruner.plan(model, batches, loss=run_toy)
    assert plan.state.kept['mlp'].tolist() == [1, 3]
    once = build_pruner({**pruner.to_dict(), 'rescoring': None}).plan(model, batches, loss=run_toy)
    assert once.state.kept['mlp'].tolist() == [2, 3]

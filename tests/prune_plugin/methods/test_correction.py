"""What to plan for, against functions whose answer is known."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from projects.prune_plugin.methods.budgets import latency
from projects.prune_plugin.methods.budgets.correction import to_plan_for
from projects.prune_plugin.methods.budgets.costs import TableCost
from projects.prune_plugin.methods.budgets.latency import LatencyBudget


def plans(saved, wanted, rounds=8):
    """Predictions tried one after the other, from the wanted one on."""
    tried, planned = [], wanted
    for _ in range(rounds):
        tried.append((planned, saved(planned)))
        planned = to_plan_for(wanted, tried)
    return planned


@pytest.mark.parametrize(
    'saved',
    [
        lambda x: 0.6 * x,
        lambda x: 1.4 * x,
        lambda x: 2.5 * x * x,  # steeper than proportional: dividing by the last ratio would swing
        lambda x: math.sqrt(x) / 2,
        lambda x: 0.7 * x + (0.05 if x > 0.33 else 0),
    ],
)
def test_plans_converge(saved):
    wanted = 0.3
    assert saved(plans(saved, wanted)) == pytest.approx(wanted, abs=0.01)


def test_a_step_is_closed_in_on_from_both_sides():
    """No plan saves 0.3, so the predictions end at the step, not beside it."""
    assert plans(lambda x: 0.2 if x < 0.35 else 0.4, 0.3, 12) == pytest.approx(0.35, abs=0.01)


def test_too_little_saved_asks_for_more_but_not_for_much_more_at_once():
    assert to_plan_for(0.3, [(0.3, 0.2)]) == pytest.approx(0.45)
    assert to_plan_for(0.3, [(0.3, 0.01)]) == to_plan_for(0.3, [(0.3, 0)]) == pytest.approx(0.6)


def test_noise_that_orders_plans_the_other_way_stays_between_them():
    assert to_plan_for(0.3, [(0.3, 0.35), (0.4, 0.25)]) == pytest.approx(0.35)


def test_a_latency_budget_takes_the_closest_plan_of_those_that_it_timed(monkeypatch):
    """Slim copies whose time falls in steps, and faster than the tables say."""
    budget, timed = LatencyBudget(ratio=0.3), []
    cost = TableCost(1.0, [(torch.tensor([0.0, 1000]), torch.tensor([0.0, 1]).double())])

    def trial(cost):
        kept = next(n for n in range(1000, -1, -1) if 1 - cost.total(torch.tensor([n])) >= 0.3)
        return torch.tensor([kept]), SimpleNamespace(reduced=True, kept=kept)

    def whole(models, profile, seconds):
        removed = 1 - models[1].kept / 1000
        timed.append(0.1 + 0.2 * round(removed * removed * 10))
        return [1.0, 1 - timed[-1]]

    monkeypatch.setattr(latency, 'slim', lambda model, state: state)
    monkeypatch.setattr(budget, '_whole', whole)
    corrected = budget.corrected(nn.Identity(), [], trial, cost, {})
    assert len(timed) <= latency.TRIALS and 0.3 in [pytest.approx(t) for t in timed]
    last = 1 - trial(corrected)[1].kept / 1000
    assert 0.1 + 0.2 * round(last * last * 10) == pytest.approx(0.3)

"""What is said of a pruned model that is slower, or faster, than was asked for."""

import pytest
import torch
from cases import BY_NAME
from torch import nn

from projects.prune_plugin.methods.budgets import BudgetResult
from projects.prune_plugin.structure.prune_state import PruneState
from projects.prune_plugin.workflows import latency_warnings as warnings


@pytest.fixture
def said(monkeypatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(warnings, 'print_log', lambda text, *_: texts.append(text))
    return texts


def state_of(neurons: int) -> PruneState:
    groups = {g.name: g for g in BY_NAME['vit'].groups()}
    kept = {
        name: torch.arange(neurons if group.kind == 'mlp' else group.size)
        for name, group in groups.items()
    }
    return PruneState(groups, kept)


def test_widths_in_half_precision(said):
    assert warnings.odd_widths(state_of(96)) == []
    odd = warnings.odd_widths(state_of(97))
    assert odd == [name for name, g in state_of(97).groups.items() if g.kind == 'mlp']
    for model in (nn.Linear(2, 2), nn.Linear(2, 2).half()):  # on a CPU
        warnings.warn_of_odd_widths(model, state_of(97))
    elsewhere = nn.Linear(2, 2, device='meta')  # stands for a GPU
    warnings.warn_of_odd_widths(elsewhere, state_of(97))
    warnings.warn_of_odd_widths(elsewhere.half(), state_of(96))
    assert not said
    warnings.warn_of_odd_widths(elsewhere.half(), state_of(97))
    assert f'3 pruned groups, such as {odd[0]}, keep' in said[0]


@pytest.mark.parametrize(
    ('quantity', 'after', 'warned'),
    [
        ('latency', 70.0, False),
        ('latency', 60.0, True),
        ('latency', 80.0, True),
        ('flops', 80.0, False),
    ],
)
def test_a_latency_budget_that_was_missed(said, quantity, after, warned):
    result = BudgetResult(quantity, 0.3, 0.3, 100.0, 70.0, 'ms')
    warnings.warn_of_missed_latency(result, [dict(latency_ms=100.0), dict(latency_ms=after)])
    warnings.warn_of_missed_latency(result, [dict(latency_ms=None), dict(latency_ms=None)])
    assert bool(said) == warned
    assert not warned or f'30.0% of the latency to be removed, but {1 - after / 100:.1%}' in said[0]

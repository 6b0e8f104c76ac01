"""Soft pruning: what is added to the gradients, and that leaving units fade and go."""

import json
from types import SimpleNamespace

import pytest
import torch
from test_iterative_loop import NEURONS, PENALTY, ROUNDS, config, kept_units, neuron_l1, run

from projects.prune_plugin.checkpoints.checkpoint_file import load_file
from projects.prune_plugin.methods.penalties import GReg, GroupLasso
from projects.prune_plugin.methods.penalties.rsst import RAMPS, RSST
from projects.prune_plugin.training.hooks import penalty_hook


def test_leaving_units_fade_and_go_at_the_end(tmp_path, monkeypatch):
    grads, original = [], penalty_hook.PenaltyHook.add_gradients

    def pull(self, optimizer, args, kwargs):
        parameters = [p for group in optimizer.param_groups for p in group['params']]
        before = [p.grad.clone() for p in parameters]
        original(self, optimizer, args, kwargs)
        grads.append(
            [
                (p.detach().clone(), b, p.grad.clone())
                for p, b in zip(parameters, before, strict=True)
            ]
        )

    monkeypatch.setattr(penalty_hook.PenaltyHook, 'add_gradients', pull)
    schedule = dict(ROUNDS, rewind=None)
    run(config(tmp_path, dict(NEURONS, penalty=PENALTY), schedule))
    kept = [kept_units(tmp_path / f'state_{state:02d}.pth') for state in range(3)]
    assert [len(units) for units in kept] == [16, 11, 8] and len(grads) == 12
    for step, parameters in enumerate(grads):
        state, within = 1 + step // 6, step % 6
        leaving = sorted(set(kept[state - 1]) - set(kept[state]))
        strength = 3.0 * (within + 1) / 6
        for number, (weight, before, after) in enumerate(parameters):  # fc1 w, b; fc2 w, b
            expected = before.clone()
            if number < 2:
                expected[leaving] += strength * weight[leaving]
            elif number == 2:
                expected[:, leaving] += strength * weight[:, leaving]
            assert torch.allclose(after, expected, atol=1e-6)
    first, last = (load_file(tmp_path / f'epoch_{e}.pth')['state_dict'] for e in (2, 4))
    leaving = sorted(set(kept[0]) - set(kept[1]))
    assert neuron_l1(last)[leaving].sum() < 0.5 * neuron_l1(first)[leaving].sum()
    assert (neuron_l1(last)[leaving] > 0).all()  # until the end of the state they are there
    rows = json.loads((tmp_path / 'states.json').read_text())
    assert all(row['before_removal'] and row['after_removal'] for row in rows)


@pytest.mark.parametrize('kind', ['GroupLasso', 'GReg'])
def test_other_penalties_pull_too(tmp_path, kind):
    penalty = dict(
        GroupLasso=dict(type='GroupLasso', strength=0.5),
        GReg=dict(type='GReg', increment=1.0, interval=2, strength=5.0),
    )[kind]
    run(config(tmp_path, dict(NEURONS, penalty=penalty), dict(ROUNDS, rewind=None)))
    kept = [kept_units(tmp_path / f'state_{state:02d}.pth') for state in range(2)]
    first, last = (load_file(tmp_path / f'epoch_{e}.pth')['state_dict'] for e in (2, 4))
    leaving = sorted(set(kept[0]) - set(kept[1]))
    assert neuron_l1(last)[leaving].sum() < neuron_l1(first)[leaving].sum()


@pytest.mark.parametrize('name', list(RAMPS))
def test_ramps_go_from_0_to_1_and_never_down(name):
    values = [RAMPS[name](p / 100, 4.0) for p in range(101)]
    assert values[0] == 0 and values[-1] == pytest.approx(1)
    assert all(b >= a for a, b in zip(values, values[1:], strict=False))


@pytest.mark.parametrize(('rate', 'warned'), [(0.3, True), (0.1, False)])
def test_a_pull_that_overshoots_is_told(rate, warned, monkeypatch):
    """By the rate after the warm-up, of what is pulled alone."""
    said = []
    monkeypatch.setattr(penalty_hook, 'print_log', lambda message, *_: said.append(message))
    model = torch.nn.ModuleDict(dict(fc=torch.nn.Linear(3, 5), head=torch.nn.Linear(5, 2)))
    optimizer = torch.optim.SGD(
        [
            dict(params=model.head.parameters(), lr=10.0),
            dict(params=model.fc.parameters(), lr=0.001, initial_lr=rate),
        ]
    )
    runner = SimpleNamespace(
        model=model, iter=0, optim_wrapper=SimpleNamespace(optimizer=optimizer)
    )
    hook = penalty_hook.PenaltyHook(RSST(strength=5.0))
    hook.begin(runner, [[('fc.weight', 0, torch.tensor([[1], [4]]))]], 0, 10)
    assert any('strength x learning rate is 1.5' in message for message in said) is warned
    hook.end()


def test_group_lasso_is_the_gradient_of_the_norms():
    """Over all parameters of a unit together, by autograd."""
    torch.manual_seed(0)
    first, bias, second = (
        torch.randn(shape, requires_grad=True) for shape in ((5, 3), (5,), (4, 5))
    )
    rows = torch.tensor([[1], [4]])
    units = [torch.cat([first[u], bias[u, None], second[:, u]]) for u in (1, 4)]
    expected = torch.autograd.grad(sum(unit.norm() for unit in units), (first, bias, second))
    pull = penalty_hook.RegularizedUnits(
        [(first, 0, rows), (bias, 0, rows), (second, 1, rows)], GroupLasso(0.5)
    )
    for parameter in (first, bias, second):
        parameter.grad = torch.zeros_like(parameter)
    with torch.no_grad():
        pull.add(0.5)
    for parameter, gradient in zip((first, bias, second), expected, strict=True):
        assert torch.allclose(parameter.grad, 0.5 * gradient, atol=1e-6)


def test_greg_grows_by_equal_steps_to_its_ceiling():
    penalty = GReg(increment=0.25, interval=3, strength=0.6)
    assert [penalty.at(step, 100) for step in range(9)] == [0.25] * 3 + [0.5] * 3 + [0.6] * 3

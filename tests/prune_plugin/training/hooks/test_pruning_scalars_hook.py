"""What is pruned reaches the visualizer's backends, from trainings of one round and of several."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from projects.prune_plugin import build_pruner, slim
from projects.prune_plugin.checkpoints.packed_masks import pack_masks
from projects.prune_plugin.training.hooks import PruningScalarsHook
from projects.prune_plugin.training.hooks.pruning_scalars_hook import log_round


class Drawn(list):
    """A visualizer that keeps what it is given."""

    def add_scalars(self, values, step):
        self.append((step, values))


def runner_of(model: nn.Module, step: int = 7) -> SimpleNamespace:
    return SimpleNamespace(model=model, visualizer=Drawn(), iter=step)


def test_kept_shares_of_a_slim_model():
    model = nn.ModuleDict({'mlp': nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))})
    plan = build_pruner(dict(budget=dict(type='units', ratio=0.25))).plan(model)
    kept = {kind: 12 / 16 for kind in {group.kind for group in plan.groups}}
    slimmed = slim(model, plan.state)
    slimmed.prune_state = plan.state
    runner = runner_of(slimmed)
    hook = PruningScalarsHook()
    hook.before_train(runner)
    hook.after_train_epoch(runner)
    assert (
        runner.visualizer
        == [(7, {f'pruning/kept/{kind}': share for kind, share in kept.items()})] * 2
    )


def test_zeros_are_counted_in_the_weights_as_they_are():
    model = nn.Linear(4, 5)
    keep = torch.rand(5, 4) > 0.5
    hook, runner = PruningScalarsHook(), runner_of(model)
    hook.after_load_checkpoint(runner, {'masks': pack_masks({'weight': keep})})
    hook.before_train(runner)
    with torch.no_grad():
        model.weight.masked_fill_(~keep, 0)
    hook.after_train_epoch(runner)
    zeros = [values['pruning/zeros'] for _, values in runner.visualizer]
    assert zeros == [0, pytest.approx(float((~keep).float().mean()))]


def test_a_dense_model_has_none():
    runner = runner_of(nn.Linear(4, 5))
    PruningScalarsHook().before_train(runner)
    assert runner.visualizer == []


def test_a_round():
    drawn = Drawn()
    row = dict(
        round=2, ratio=0.5, sparsity=0.49, kept={'mlp': (8, 16)}, params=100, flops=None,
        after_prune={'acc': 0.4}, before_removal=None, after_training={'acc': 0.6},
    )  # fmt: skip
    log_round(drawn, row, 30)
    assert drawn == [(30, {
        'pruning/round': 2, 'pruning/ratio': 0.5, 'pruning/sparsity': 0.49, 'pruning/params': 100,
        'pruning/kept/mlp': 0.5, 'pruning/after_prune/acc': 0.4, 'pruning/after_training/acc': 0.6,
    })]  # fmt: skip

"""What the hook lets pass, and what it ends."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.training.hooks import FiniteGradientsHook


def runner_of(model: nn.Module, **kwargs) -> SimpleNamespace:
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    wrapper = OptimWrapper(optimizer, **kwargs)
    return SimpleNamespace(model=model, optim_wrapper=wrapper, epoch=4)


@pytest.mark.parametrize('clip', [None, dict(max_norm=1.0)])
@pytest.mark.parametrize('value', [torch.nan, torch.inf])
def test_ends_before_the_weights_change(clip, value):
    model, hook = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), FiniteGradientsHook()
    runner, before = runner_of(model, clip_grad=clip), [p.clone() for p in model.parameters()]
    hook.before_train_iter(runner, 7)
    model[1].bias.register_hook(lambda gradient: gradient * value)
    said = r'epoch 5, batch 8: gradients of 1 of 4 tensors are NaN or infinite \(1\.bias\)'
    with pytest.raises(UserError, match=said):
        runner.optim_wrapper.update_params(model(torch.ones(1, 2)).sum())
    assert all(p.equal(was) for p, was in zip(model.parameters(), before, strict=True))


def test_changes_nothing_else():
    """The same steps as without it; afterwards the wrapper is as it was, also where it is replaced."""
    torch.manual_seed(0)
    models = [nn.Linear(3, 1)]
    models.append(nn.Linear(3, 1))
    models[1].load_state_dict(models[0].state_dict())
    hook = FiniteGradientsHook()
    for model, watched in zip(models, (True, False), strict=True):
        runner = runner_of(model, clip_grad=dict(max_norm=0.1))
        for batch in range(4):
            if batch == 2:
                runner.optim_wrapper = runner_of(model).optim_wrapper
            own = runner.optim_wrapper.step
            if watched:
                hook.before_train_iter(runner, batch)
                assert (runner.optim_wrapper.step != own) == (batch in (0, 2))
            runner.optim_wrapper.update_params(model(torch.ones(2, 3)).square().sum())
        hook.after_train(runner)
        assert runner.optim_wrapper.step == OptimWrapper.step.__get__(runner.optim_wrapper)
    assert models[0].weight.equal(models[1].weight)


def test_a_gradient_scaler_is_left_alone():
    runner, hook = runner_of(nn.Linear(1, 1)), FiniteGradientsHook()
    runner.optim_wrapper.loss_scaler = object()
    own = runner.optim_wrapper.step
    hook.before_train_iter(runner, 0)
    assert runner.optim_wrapper.step == own

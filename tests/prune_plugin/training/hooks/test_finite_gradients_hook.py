"""What the hook lets pass, and what it ends."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.training.bf16_optim_wrapper import Bf16OptimWrapper
from projects.prune_plugin.training.hooks import FiniteGradientsHook
from projects.prune_plugin.training.skipped_steps import LIMIT


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


class Scaled:
    """An optimizer wrapper with a gradient scaler, as AmpOptimWrapper is on a GPU."""

    def __init__(self, parameters, fused: bool):
        self.optimizer = torch.optim.SGD(parameters, lr=0.1, fused=fused or None)
        self.loss_scaler, self.fused, self.overflow = object(), fused, True

    def step(self) -> None:
        """What GradScaler.step does."""
        if self.fused:  # it skips by itself, and is told so on the device
            self.optimizer.found_inf = torch.tensor(float(self.overflow))
            self.optimizer.step()
            del self.optimizer.found_inf
        elif not self.overflow:
            self.optimizer.step()


@pytest.mark.parametrize('fused', [False, True])
def test_under_a_gradient_scaler_skipped_steps_are_counted(fused):
    """A few are normal; none but skipped ones end the training."""
    model, hook = nn.Linear(1, 1), FiniteGradientsHook()
    wrapper = Scaled(model.parameters(), fused)
    runner = SimpleNamespace(model=model, epoch=2, optim_wrapper=wrapper)
    hook.before_train(runner)

    def steps(count: int, overflow: bool) -> None:
        wrapper.overflow = overflow
        for number in range(count):
            hook.before_train_iter(runner, number)
            model.weight.grad = torch.full((1, 1), float('nan'))  # left to the scaler
            runner.optim_wrapper.step()

    steps(LIMIT - 1, overflow=True)
    steps(1, overflow=False)
    with pytest.raises(UserError, match=f'in epoch 3, .* the last {LIMIT} steps were NaN'):
        steps(2 * LIMIT, overflow=True)
    hook.after_train(runner)
    assert wrapper.step.__func__ is Scaled.step


@pytest.mark.parametrize('wrapper', [OptimWrapper, Bf16OptimWrapper])
def test_float16_weights_are_not_trained(wrapper):
    """They would be NaN after AdamW's first step; frozen ones below adapters are let through."""
    model = nn.Linear(2, 2).half()
    before = model.weight.clone()
    optimizer = torch.optim.AdamW(model.parameters())
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper(optimizer))
    said = (
        'weight is float16, in which weights cannot be trained: load the model in float32 or bfloat'
    )
    with pytest.raises(UserError, match=said):
        FiniteGradientsHook().before_train(runner)
    assert model.weight.equal(before)
    for other in (nn.Linear(2, 2), nn.Linear(2, 2).bfloat16(), model.requires_grad_(False)):
        runner.model = other
        FiniteGradientsHook().before_train(runner)

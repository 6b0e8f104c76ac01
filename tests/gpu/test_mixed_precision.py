"""Masks, penalties and the check of gradients under autocast and a gradient scaler, on CPUs.

PyTorch's scaler runs on CPUs too; MMEngine's AmpOptimWrapper only asks for a GPU, which is pretended here.
"""

from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from torch import Tensor, nn

from projects.prune_plugin import UserError
from projects.prune_plugin.common.registry import PENALTIES, build
from projects.prune_plugin.training.bf16_optim_wrapper import Bf16OptimWrapper
from projects.prune_plugin.training.hooks import FiniteGradientsHook
from projects.prune_plugin.training.hooks.mask_hook import MaskHook
from projects.prune_plugin.training.hooks.penalty_hook import PenaltyHook

STEPS, RATE, STRENGTH = 6, 0.05, 0.5


class Net(nn.Module):
    """Two layers; the loss is a mean square."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()).float().square().mean()


def wrapper_of(kind: str, monkeypatch, optimizer, **kwargs) -> OptimWrapper:
    """``'float32'``, ``'bf16'``, or ``'fp16'`` with a scaler; autocast is bfloat16 in both, as on CPUs."""
    if kind == 'float32':
        return OptimWrapper(optimizer, **kwargs)
    if kind == 'bf16':
        return Bf16OptimWrapper(optimizer=optimizer, **kwargs)
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(
        amp_optimizer_wrapper, 'GradScaler', lambda **k: torch.amp.GradScaler('cpu', **k)
    )
    scale = dict(init_scale=65536.0)
    return AmpOptimWrapper(optimizer=optimizer, dtype='bfloat16', loss_scale=scale, **kwargs)


def trained(kind: str, monkeypatch, penalty: bool, poison: int = -1, **kwargs) -> Net:
    """The model after some steps with every third weight masked, and a penalty on two of its units.

    Args:
        kind: See :func:`wrapper_of`.
        monkeypatch: Pytest's.
        penalty: Whether there is one.
        poison: The step whose loss overflows.
        kwargs: ``implementation`` of the optimizer; others are the wrapper's.
    """
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, **kwargs.pop('implementation'))
    wrapper = wrapper_of(kind, monkeypatch, optimizer, **kwargs)
    hub = SimpleNamespace(update_scalar=lambda *_: None)
    runner = SimpleNamespace(
        model=model, optim_wrapper=wrapper, epoch=0, iter=0, message_hub=hub, max_iters=STEPS
    )
    wrapper.initialize_count_status(model, 0, STEPS)
    masks, finite = MaskHook(), FiniteGradientsHook()
    masks.masks = {'first.weight': torch.arange(48).view(8, 6) % 3 > 0}
    hooks = [finite, masks]
    if penalty:
        hook = PenaltyHook(build(PENALTIES, dict(type='RSST', strength=STRENGTH), 'penalty'))
        hook.begin(runner, [[('second.weight', 1, torch.tensor([[0], [1]]))]], 0, 1)
        hooks.append(hook)
    for hook in hooks:
        hook.before_train(runner)
    for step in range(STEPS):
        torch.manual_seed(step)
        x = torch.randn(16, 6)
        if step == poison:
            x[0, 0] = torch.inf
        for hook in hooks:
            hook.before_train_iter(runner, step)
        with wrapper.optim_context(model):
            loss = model(x)
        wrapper.update_params(loss)
        for hook in hooks:
            hook.after_train_iter(runner, step)
        runner.iter += 1
        assert not model.first.weight.detach()[~masks.masks['first.weight']].any()
    return model


IMPLEMENTATIONS = [dict(foreach=False), dict(foreach=True), dict(fused=True)]
SETTINGS = [{}, dict(clip_grad=dict(max_norm=0.05)), dict(accumulative_counts=2)]


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS, ids=str)
@pytest.mark.parametrize('settings', SETTINGS, ids=str)
@pytest.mark.parametrize('kind', ['bf16', 'fp16'])
def test_as_in_float32(kind, settings, implementation, monkeypatch):
    """What training does, and what the penalty adds to it."""

    def run(kind: str, penalty: bool) -> Net:
        return trained(kind, monkeypatch, penalty, implementation=implementation, **settings)

    plain, mixed = run('float32', True), run(kind, True)
    for name, parameter in mixed.named_parameters():
        assert torch.allclose(parameter, plain.get_parameter(name), 0.02, 0.01), name
    pulled = run('float32', False).second.weight - plain.second.weight
    found = run(kind, False).second.weight - mixed.second.weight
    assert pulled[:, :2].abs().max() > 0.02
    assert torch.allclose(found, pulled, 0.05, 5e-3)


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS, ids=str)
def test_an_overflow_skips_its_step_alone(implementation, monkeypatch):
    model = trained('fp16', monkeypatch, True, poison=2, implementation=implementation)
    assert all(p.isfinite().all() for p in model.parameters())
    for kind in ('float32', 'bf16'):
        with pytest.raises(UserError, match='batch 3: gradients of . of 4 tensors are NaN'):
            trained(kind, monkeypatch, True, poison=2, implementation=implementation)

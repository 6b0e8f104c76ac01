"""Masked weights stay zero whatever trains them, and don't disturb those that are left."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
import toy  # noqa: E402  beside this folder
from mmengine.registry import MODELS

from projects.prune_plugin import WeightPruner
from projects.prune_plugin.checkpoints.checkpoint_file import load_file, use_safe_loader
from projects.prune_plugin.training.hooks.mask_hook import pack_masks

MOMENTUM = dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.1)
#: How weights may be trained: each grows masked weights back without the hook.
WAYS = {
    'momentum': dict(optim_wrapper=dict(type='OptimWrapper', optimizer=MOMENTUM)),
    'clipped': dict(optim_wrapper=dict(toy.ADAMW, clip_grad=dict(max_norm=0.01))),
    'accumulated': dict(optim_wrapper=dict(toy.ADAMW, accumulative_counts=2)),
    'bfloat16': dict(optim_wrapper=dict(toy.ADAMW, type='Bf16OptimWrapper')),
    'all at once': dict(
        optim_wrapper=dict(toy.ADAMW, type='Bf16OptimWrapper', accumulative_counts=2,
                           clip_grad=dict(max_norm=0.1)),
        hooks=[toy.EMA],
    ),
    'optimizer state carried over': dict(hooks=[dict(type='CarryOverHook')], epochs=4),
}  # fmt: skip


@pytest.fixture(autouse=True)
def safe_loader():
    """As the tools do."""
    from mmengine.runner.checkpoint import CheckpointLoader

    schemes = dict(CheckpointLoader._schemes)
    use_safe_loader()
    yield
    CheckpointLoader._schemes = schemes


@pytest.fixture
def masked(tmp_path):
    """A trained checkpoint with masks, and its optimizer's state, momentum of masked weights too."""
    toy.runner(tmp_path / 'dense').train()
    dense = load_file(tmp_path / 'dense' / 'epoch_2.pth')
    model = MODELS.build(dict(toy.MODEL))
    model.load_state_dict(dense['state_dict'])
    masks = WeightPruner(budget=dict(type='weights', ratio=0.6)).sparsify(model)
    for name, keep in masks.items():
        dense['state_dict'][name].mul_(keep)
    path = tmp_path / 'toy_pruned.pth'
    data = dict(
        meta=dict(epoch=2, iter=6), state_dict=dense['state_dict'], masks=pack_masks(masks),
        optimizer=dense['optimizer'],
    )  # fmt: skip
    torch.save(data, path)
    return str(path), masks


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('hooks', [[dict(type='MaskHook')], []], ids=['masked', 'not masked'])
def test_zeros_stay(way, hooks, masked, tmp_path):
    path, masks = masked
    settings = deepcopy(WAYS[way])
    hooks = hooks + settings.pop('hooks', [])
    run = toy.runner(tmp_path / 'work', hooks=hooks, load_from=path, **settings)
    run.train()
    start = load_file(path)['state_dict']
    last = load_file(sorted((tmp_path / 'work').glob('epoch_*.pth'))[-1])
    for key in ('state_dict', 'ema_state_dict'):
        weights = {k.removeprefix('module.'): v for k, v in last.get(key, {}).items()}
        for name in masks if weights else ():
            grown = weights[name][~masks[name]].any()
            assert not grown if hooks[:1] == [dict(type='MaskHook')] else grown, (key, name)
            assert not torch.equal(weights[name][masks[name]], start[name][masks[name]])


def test_clipping_sees_only_the_weights_that_are_left(masked, tmp_path):
    """One step of plain gradient descent against the same by hand."""
    path, masks = masked
    wrapper = dict(
        type='OptimWrapper', optimizer=dict(type='SGD', lr=1.0), clip_grad=dict(max_norm=0.01)
    )
    loader = dict(toy.LOADER, batch_size=toy.SAMPLES)
    run = toy.runner(tmp_path / 'work', epochs=1, hooks=[dict(type='MaskHook')], load_from=path,
                     optim_wrapper=wrapper, train_dataloader=loader)  # fmt: skip
    run.train()
    model = MODELS.build(dict(toy.MODEL))
    model.load_state_dict(load_file(path)['state_dict'])
    data = toy.ToyData()
    F.cross_entropy(model(data.inputs), data.labels).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    for name, keep in masks.items():
        gradients[name] = gradients[name] * keep
    norm = torch.cat([g.flatten() for g in gradients.values()]).norm()
    assert norm > 0.01
    for name, parameter in model.named_parameters():
        expected = parameter.detach() - gradients[name] * 0.01 / norm
        torch.testing.assert_close(run.model.state_dict()[name], expected, rtol=1e-4, atol=1e-6)
    for parameter in run.model.parameters():
        assert not parameter._backward_hooks


def test_frozen_weights_may_be_masked(masked, tmp_path):
    path, masks = masked
    run = toy.runner(tmp_path / 'work', epochs=1, hooks=[dict(type='MaskHook')], load_from=path)
    run.model.mlp.fc1.weight.requires_grad_(False)
    run.train()
    assert not run.model.mlp.fc1.weight[~masks['mlp.fc1.weight']].any()

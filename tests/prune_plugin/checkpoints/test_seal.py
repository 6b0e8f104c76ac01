"""Pruned checkpoints are noticed when they were changed; old ones are read."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from projects.prune_plugin import UserError, build_pruner, slim
from projects.prune_plugin.checkpoints import seal
from projects.prune_plugin.checkpoints.checkpoint_file import load_file, save_file
from projects.prune_plugin.checkpoints.packed_masks import pack_masks


class Net(nn.Module):
    """Two encoder layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True) for _ in range(2))
        )

    def forward(self, x):
        return self.layers(x)


def slim_checkpoint():
    torch.manual_seed(0)
    model = Net()
    state = build_pruner(dict(budget=dict(type='params', ratio=0.3))).plan(model).state
    content = dict(
        meta=dict(prune_state=state.to_dict()), state_dict=slim(model, state).state_dict()
    )
    seal.seal(content)
    return content


def masked_checkpoint():
    torch.manual_seed(0)
    weights = Net().state_dict()
    masks = {n: w.abs() > w.abs().median() for n, w in weights.items() if w.dim() > 1}
    for name, keep in masks.items():
        weights[name] = weights[name] * keep
    content = dict(meta={}, state_dict=weights, masks=pack_masks(masks))
    seal.seal(content)
    return content


def other_module(content):
    group = next(iter(content['meta']['prune_state']['groups'].values()))
    group['converts'] = [['layers.1.self_attn', 'SlimMultiheadAttention']]


def other_units(content):
    for group in content['meta']['prune_state']['groups'].values():
        if 0 < len(group['kept']) < group['size']:
            gone = next(u for u in range(group['size']) if u not in group['kept'])
            group['kept'] = sorted([*group['kept'][1:], gone])
            return


def other_number(content):
    next(iter(content['meta']['prune_state']['groups'].values()))['least'] += 1


def all_gone(content):
    for entry in content['masks'].values():
        entry['bits'] = torch.zeros_like(entry['bits'])


def one_mask_less(content):
    content['masks'].popitem()


def other_shape(content):
    name = next(iter(content['state_dict']))
    content['state_dict'][name] = content['state_dict'][name][:-1].clone()


CHANGES = [
    (slim_checkpoint, other_module), (slim_checkpoint, other_units), (slim_checkpoint, other_number),
    (slim_checkpoint, other_shape), (masked_checkpoint, all_gone), (masked_checkpoint, one_mask_less),
]  # fmt: skip


@pytest.mark.parametrize(('make', 'change'), CHANGES, ids=lambda f: f.__name__)
def test_a_changed_file_is_refused(tmp_path, monkeypatch, make, change):
    content = copy.deepcopy(make())
    save_file(content, tmp_path / 'a.pth')
    load_file(tmp_path / 'a.pth')
    change(content)
    save_file(content, tmp_path / 'a.pth')
    with pytest.raises(UserError, match=r'a\.pth was changed after it was written.*--unsealed'):
        load_file(tmp_path / 'a.pth')
    monkeypatch.setattr(seal.Policy, 'accept_broken', True)
    load_file(tmp_path / 'a.pth')


def test_weights_may_change_and_names_get_a_prefix(tmp_path):
    content = slim_checkpoint()
    weights = {f'module.{n}': w + 1 for n, w in content['state_dict'].items()}
    save_file({**content, 'state_dict': weights, 'optimizer': {}}, tmp_path / 'a.pth')
    load_file(tmp_path / 'a.pth')


def test_an_old_file_without_a_seal_is_read_with_a_line(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(seal, 'print_log', lambda text, *_, **__: said.append(text))
    content = slim_checkpoint()
    save_file(content, tmp_path / 'new.pth')
    load_file(tmp_path / 'new.pth')
    assert said == []
    del content['meta'][seal.KEY]
    save_file(content, tmp_path / 'old.pth')
    load_file(tmp_path / 'old.pth')
    assert len(said) == 1 and 'old.pth has no seal' in said[0]


def test_dense_checkpoints_have_none():
    content = dict(meta={}, state_dict=Net().state_dict())
    seal.seal(content)
    assert content['meta'] == {} and seal.seal_of(content) is None


@pytest.mark.parametrize(
    'hooks', [['PruneStateHook'], ['MaskHook'], ['MaskHook', 'EMAHook', 'PruneStateHook']]
)
def test_what_a_runner_saves_is_sealed(tmp_path, hooks):
    """Also behind an EMA, which exchanges the weights before they are saved."""
    from mmengine.registry import MODELS

    from projects.prune_plugin.checkpoints.checkpoint_file import use_safe_loader

    use_safe_loader()

    @MODELS.register_module(name='SealedNet', force=True)
    class SealedNet(nn.Module):
        def __init__(self, **_):
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.prune_state = None

        def train_step(self, data, optim_wrapper):
            optim_wrapper.update_params(self.layer(torch.stack(data)).square().mean())
            return {}

    start = dict(
        meta={}, state_dict={f'layer.{n}': p for n, p in nn.Linear(4, 3).state_dict().items()}
    )
    if 'MaskHook' in hooks:
        keep = torch.rand(3, 4) > 0.5
        start['state_dict']['layer.weight'] *= keep
        start['masks'] = pack_masks({'layer.weight': keep})
        seal.seal(start)
    save_file(start, tmp_path / 'start.pth')
    types = [dict(type=hook) for hook in hooks]
    runner = Runner(
        model=dict(type='SealedNet'), work_dir=str(tmp_path), load_from=str(tmp_path / 'start.pth'),
        train_dataloader=dict(
            dataset=torch.randn(4, 4), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False)
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1), custom_hooks=types,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), cfg=Config(dict()),
        experiment_name='_'.join(hooks),
    )  # fmt: skip
    runner.train()
    saved = load_file(tmp_path / 'epoch_1.pth')
    assert saved['meta'].get(seal.KEY) == seal.seal_of(saved)
    assert (seal.KEY in saved['meta']) == ('MaskHook' in hooks)

"""Lottery tickets of transformers and of ResNets."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner

from projects.prune_plugin import UserError, build_pruner
from projects.prune_plugin.checkpoints.model_loading import load_model

CONFIGS = Path(__file__).parents[2] / 'projects' / 'configs'


def small(tmp_path, name: str, **options) -> Config:
    """A config with two states of one epoch over 64 digits in 4 batches, a ViT of two layers."""
    cfg = Config.fromfile(CONFIGS / 'ViT' / f'{name}.py')
    sizes = dict(depth=2, embed_dim=32, num_heads=4)
    changes = {
        'work_dir': str(tmp_path),
        'experiment_name': tmp_path.name,
        **{f'model.model_kwargs.{key}': value for key, value in sizes.items()},
        'train_dataloader.batch_size': 16,
        **{f'{split}_dataloader.dataset.indices': 64 for split in ('train', 'val')},
        'train_cfg.max_epochs': 1,
        'param_scheduler': [],
        'prune_cfg.schedule.rounds': 1,
        'prune_cfg.profile': dict(seconds=0.05),
    }
    cfg.merge_from_dict({**changes, **options})
    return cfg


@pytest.mark.parametrize('method', ['refill', 'rsst'])
def test_a_layer_may_lose_all_heads(tmp_path, method):
    cfg = small(
        tmp_path, f'vit_tiny_digits_{method}',
        **{'prune_cfg.min_keep': 0, 'prune_cfg.budget.ratio': 0.5},
    )  # fmt: skip
    runner = Runner.from_cfg(cfg)
    with torch.no_grad():  # all of these heads are worth less than any of the next layer
        runner.model.backbone.blocks[0].attn.qkv.weight.mul_(1e-3)
    runner.train()
    rows = json.loads((tmp_path / 'states.json').read_text())
    kept = {
        name: left for name, (kind, left, _) in rows[1]['groups'].items() if kind == 'attention'
    }
    assert list(kept.values()) == [0, 4]
    masked = runner.model.eval()
    dense = Config.fromfile(CONFIGS / 'ViT' / 'vit_tiny_digits.py')
    dense.model.model_kwargs.update(cfg.model.model_kwargs)
    slim = load_model(dense, str(tmp_path / 'state_01.pth')).model.eval()
    assert sum(p.numel() for p in slim.parameters()) == rows[1]['params']
    x = torch.rand(5, 1, 32, 32)
    with torch.no_grad():
        assert torch.allclose(slim.backbone(x), masked.backbone(x), rtol=1e-5, atol=1e-5)
    # What is left of the attention is the bias of its output.
    assert masked.backbone.blocks[0].attn.proj.bias.abs().sum() > 0
    assert not masked.backbone.blocks[0].attn.proj.weight.any()


def test_resnet_configs_are_for_small_images():
    cfg = Config.fromfile(CONFIGS / 'ResNet' / 'resnet18_cifar10_imp.py')
    model = MODELS.build(cfg.model)
    assert sum(p.numel() for p in model.parameters()) == 11_173_962
    assert model.dummy_inputs()['inputs'].shape == (1, 3, 32, 32)
    features = model.backbone.forward_features(torch.rand(1, 3, 32, 32))
    assert features.shape == (1, 512, 4, 4)
    pruner = build_pruner(cfg.prune_cfg.to_dict())
    assert len(pruner.rounds) == 10 and pruner.schedule.rewind == 3
    assert pruner.rounds[0].ratio == pytest.approx(0.2)
    assert pruner.rounds[-1].ratio == pytest.approx(1 - 0.8**10)


def test_a_stem_that_is_not_there():
    cfg = Config.fromfile(CONFIGS / 'ViT' / 'vit_tiny_digits.py').model
    with pytest.raises(UserError, match='cifar_stem=True needs a ResNet .*vit_tiny_patch16_224'):
        MODELS.build(dict(cfg, cifar_stem=True))


@pytest.mark.parametrize('name', ['imp', 'refill'])
def test_tickets_of_a_resnet(tmp_path, name):
    cfg = Config.fromfile(CONFIGS / 'ResNet' / f'resnet18_cifar10_{name}.py')
    digits = Config.fromfile(CONFIGS / 'ViT' / 'vit_tiny_digits.py')
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'] = digits[f'{split}_dataloader']
        cfg[f'{split}_dataloader'].dataset.indices = 16
    cfg.test_dataloader = cfg.val_dataloader
    cfg.merge_from_dict(
        {
            'work_dir': str(tmp_path),
            'experiment_name': tmp_path.name,
            'model.model_kwargs': dict(in_chans=1, channels=(8, 8, 16, 16)),
            'model.data_preprocessor': dict(mean=[0.5], std=[0.5]),
            'train_dataloader.batch_size': 8,
            'train_cfg.max_epochs': 1,
            'prune_cfg.schedule': dict(rounds=2, rewind=1),
            'prune_cfg.profile': dict(seconds=0.05),
        }
    )
    Runner.from_cfg(cfg).train()
    rows = json.loads((tmp_path / 'states.json').read_text())
    shares = [left / size for row in rows for left, size in row['kept'].values()]
    assert len(shares) == 3 and shares[0] == 1 > shares[1] > shares[2]
    if name == 'imp':
        assert shares[1:] == pytest.approx([0.8, 0.64], abs=1e-3)

"""Every config of the family: loads, says only what differs, and builds."""

import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

CONFIGS = Path(__file__).parents[2] / 'projects' / 'configs'
FILES = sorted((CONFIGS / 'ViT').glob('*.py'))
PARAMETERS = {
    'vit_small_cifar10': 21_342_346,
    'vit_small_cifar100': 21_376_996,
    'vit_tiny_digits': 1_201_802,
}


def load(name: str) -> Config:
    return Config.fromfile(CONFIGS / 'ViT' / f'{name}.py')


def test_all_are_there():
    wanted = {
        f'{d}{v}' for d in PARAMETERS for v in ('', *(f'_prune{r}' for r in (10, 30, 50, 70)))
    }
    assert wanted <= {path.stem for path in FILES}


@pytest.mark.parametrize('path', CONFIGS.glob('[!_]*/*.py'), ids=lambda p: p.stem)
def test_is_short(path):
    assert len(path.read_text().splitlines()) < 40


@pytest.mark.parametrize('name', PARAMETERS)
def test_parameters(name):
    model = MODELS.build(load(name).model)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize('path', [p for p in FILES if '_prune' in p.stem], ids=lambda p: p.stem)
def test_pruned_variants_add_only_a_prune_cfg(path):
    dense_name, percent = re.fullmatch(r'(\w+)_prune(\d+)', path.stem).groups()
    pruned, dense = Config.fromfile(path), load(dense_name)
    prune_cfg = pruned._cfg_dict.pop('prune_cfg')
    assert prune_cfg.budget == {'type': 'units', 'ratio': int(percent) / 100}
    assert [unit.type for unit in prune_cfg.units] == ['AttentionHeads', 'FFNNeurons']
    assert pruned._cfg_dict == dense._cfg_dict


@pytest.mark.parametrize('number', [10, 100])
def test_data_root_comes_from_the_environment(number, monkeypatch):
    variable = f'CIFAR{number}_ROOT'
    monkeypatch.delenv(variable, raising=False)
    assert load(f'vit_small_cifar{number}').data_root == f'data/cifar{number}'
    monkeypatch.setenv(variable, '/some/where else')
    cfg = load(f'vit_small_cifar{number}_prune70')
    loaders = [cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader]
    assert [loader.dataset.data_root for loader in loaders] == ['/some/where else'] * 3
    assert [loader.dataset.split for loader in loaders] == ['train', 'test', 'test']


@pytest.mark.parametrize('name', PARAMETERS)
def test_dump_is_the_same_config(name, tmp_path):
    cfg = load(f'{name}_prune70')
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py')._cfg_dict == cfg._cfg_dict


def test_the_pretrained_trunk_learns_slowly():
    cfg = load('vit_small_dinov2_cifar10_rsst70')
    model = MODELS.build(cfg.model)
    assert sum(p.numel() for p in model.parameters()) == 21_558_922
    assert model.dummy_inputs()['inputs'].shape == (1, 3, 112, 112)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = {id(p): group['lr'] for group in wrapper.param_groups for p in group['params']}
    for name, parameter in model.named_parameters():
        rate = 0.01 if name.startswith('backbone.head.') else 4e-5
        assert rates[id(parameter)] == pytest.approx(rate), name
    assert max(rates.values()) == 0.01


def test_scope_is_mmengines():
    cfg = load('vit_tiny_digits')
    init_default_scope(cfg.default_scope)
    assert cfg.default_scope == 'mmengine'

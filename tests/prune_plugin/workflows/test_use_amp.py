"""What ``--amp`` means where."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper

from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.training import config_edits
from projects.prune_plugin.training.config_edits import check_mixed_precision
from projects.prune_plugin.workflows.train import use_amp

BF16, FP16 = 'Bf16OptimWrapper', 'AmpOptimWrapper'


@pytest.mark.parametrize(
    ('gpu', 'has_bf16', 'options', 'expected'),
    [
        (False, False, {}, BF16),
        (True, True, {}, BF16),
        (True, False, {}, FP16),
        (True, True, dict(loss_scale=512.0), FP16),
        (True, True, dict(dtype='float16'), FP16),
    ],
)
def test_bfloat16_where_there_is_some(gpu, has_bf16, options, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda **_: has_bf16)
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper', **options)))
    use_amp(cfg)
    assert cfg.optim_wrapper.type == expected


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (
            dict(loss_scale='dynamic'),
            "loss_scale is 'dynamic', but there is no GPU, .* out loss_scale$",
        ),
        (dict(dtype='bfloat16'), "optim_wrapper.dtype is 'bfloat16', but there is no GPU"),
        (dict(dtype='float16', loss_scale=1.0), 'leave out dtype and loss_scale$'),
    ],
)
def test_what_only_a_gpu_has_is_refused_without_one(options, said, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    cfg = Config(dict(optim_wrapper=dict(type=FP16, **options)))
    with pytest.raises(UserError, match=said):
        use_amp(cfg)


@pytest.mark.parametrize('name', [FP16, f'mmengine.{FP16}', AmpOptimWrapper])
def test_mixed_precision_of_mmengine_needs_a_gpu(name, monkeypatch):
    cfg = Config(dict(optim_wrapper=dict(type=name)))
    monkeypatch.setattr(config_edits, 'is_cuda_available', lambda: True)
    check_mixed_precision(cfg)
    monkeypatch.setattr(config_edits, 'is_cuda_available', lambda: False)
    with pytest.raises(UserError, match='type is AmpOptimWrapper, which needs a GPU, .* or --amp'):
        check_mixed_precision(cfg)
    use_amp(cfg)
    check_mixed_precision(cfg)


@pytest.mark.parametrize('wrapper', [None, {}, dict(type='OptimWrapper'), dict(type='Unknown')])
def test_other_wrappers_are_let_through(wrapper):
    check_mixed_precision(Config(dict(optim_wrapper=wrapper)))

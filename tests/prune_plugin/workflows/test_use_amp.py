"""What ``--amp`` means where."""

import pytest
import torch
from mmengine.config import Config

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

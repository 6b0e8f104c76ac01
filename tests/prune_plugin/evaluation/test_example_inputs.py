"""Detectors that ask for the images' sizes can be profiled like any other model."""

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

from projects.prune_plugin.evaluation.example_inputs import (
    check_shape,
    data_sample_kwargs,
    example_input,
)
from projects.prune_plugin.evaluation.flops import module_flops


def detr() -> nn.Module:
    """mmdet's DETR with one layer each way, on a small ResNet-18."""
    pytest.importorskip('mmdet.models')
    from mmdet.registry import MODELS

    attention, ffn = dict(embed_dims=16, num_heads=2), dict(embed_dims=16, feedforward_channels=32)
    layer = dict(self_attn_cfg=attention, ffn_cfg=ffn)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(
            dict(
                type='DETR',
                num_queries=5,
                backbone=dict(type='ResNet', depth=18, base_channels=8, out_indices=(3,)),
                neck=dict(type='ChannelMapper', in_channels=[64], kernel_size=1, out_channels=16,
                          act_cfg=None, num_outs=1),
                encoder=dict(num_layers=1, layer_cfg=layer),
                decoder=dict(num_layers=1, return_intermediate=True,
                             layer_cfg=dict(layer, cross_attn_cfg=attention)),
                positional_encoding=dict(num_feats=8, normalize=True),
                bbox_head=dict(type='DETRHead', num_classes=3, embed_dims=16),
            )
        ).eval()  # fmt: skip


def test_a_detr_runs_on_its_example_input():
    model = detr()
    args, kwargs = example_input(model, 2, (3, 64, 96))
    classes, boxes = model(*args, **kwargs)
    assert classes.shape == (1, 2, 5, 4) and boxes.shape == (1, 2, 5, 4)
    check_shape(model, (3, 64, 96))
    flops = module_flops(model, example_input(model, 1, (3, 64, 96)))
    assert flops['decoder.layers.0.ffn.layers.0.0'] == 2 * 5 * 16 * 32  # a query's neurons


def test_other_models_are_told_nothing():
    assert data_sample_kwargs(nn.Linear(3, 3), torch.zeros(1, 3, 8, 8)) == {}

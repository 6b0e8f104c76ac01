"""Finding units: patterns, numbering, and modules that must not be cut."""

import pytest
import tiny_models as tiny
import torch
from cases import BY_NAME, CHANNELS, HEADS, LAYERS, NEURONS
from torch import nn

from projects.prune_plugin import UNITS, StructuredPruner, UserError
from projects.prune_plugin.registry import build
from projects.prune_plugin.units import AttentionHeads, Cut, discover, sum_per_unit
from projects.prune_plugin.units.finder import check_disjoint


def names(model, *units, **kwargs) -> list[str]:
    return [g.name for g in discover(model, [build(UNITS, u, '') for u in units], **kwargs)[0]]


def test_patterns_choose_groups():
    model = BY_NAME['vit'].dense()
    assert names(model, HEADS) == [f'blocks.{i}.attn' for i in range(3)]
    chosen = names(model, HEADS, NEURONS, include=[r'blocks\.[01]', r'.*mlp'], exclude=[r'.*1\.m'])
    assert chosen == ['blocks.0.attn', 'blocks.1.attn', 'blocks.0.mlp', 'blocks.2.mlp']


@pytest.mark.parametrize('key', ['include', 'exclude'])
def test_patterns_that_match_nothing_are_named(key):
    model = BY_NAME['vit'].dense()
    with pytest.raises(
        UserError, match=rf"prune_cfg.{key}: 'layers' matches no unit group; groups"
    ):
        names(model, HEADS, **{key: ['layers']})
    with pytest.raises(UserError, match=r"'attn' matches no unit group"):  # from a name's start
        names(model, HEADS, **{key: ['attn']})


def test_excluding_everything_is_refused():
    with pytest.raises(UserError, match='prune_cfg.exclude leaves no unit group'):
        names(BY_NAME['vit'].dense(), HEADS, exclude=['blocks'])


def test_finders_that_find_nothing_are_named():
    with pytest.raises(UserError, match='BottleneckChannels finds nothing in this model'):
        names(BY_NAME['vit'].dense(), HEADS, CHANNELS)
    with pytest.raises(UserError, match='no units of the known kinds'):
        StructuredPruner().plan(nn.Linear(3, 3))


def test_default_units_are_those_the_model_has():
    plan = StructuredPruner(budget=dict(type='params', ratio=0.2)).plan(BY_NAME['vit'].dense())
    assert {group.kind for group in plan.groups} == {'attention', 'mlp'}  # no whole layers
    plan = StructuredPruner().plan(BY_NAME['resnet18-channel'].dense())
    assert {group.kind for group in plan.groups} == {'channel'}


def test_layers_are_numbered_through_the_model():
    model = nn.ModuleDict({'a': tiny.timm_vit(depth=2), 'b': tiny.timm_vit(depth=3)})
    groups, _ = discover(model, [build(UNITS, unit, '') for unit in (HEADS, NEURONS)])
    assert [group.layer_idx for group in groups] == [0, 1, 2, 3, 4] * 2
    resnet = BY_NAME['resnet18-channel'].groups()
    assert [group.layer_idx for group in resnet] == list(range(8))


def test_what_cannot_be_cut_is_refused_with_a_reason():
    import timm
    from timm.layers import Mlp

    vit = timm.create_model('vit_tiny_patch16_224', depth=2, scale_attn_norm=True)
    with_norm = Mlp(8, 16, norm_layer=nn.LayerNorm)
    grouped = tiny.torchvision_resnet(50)
    grouped.layer1[0].conv2 = nn.Conv2d(64, 64, 3, padding=1, groups=2, bias=False)
    model = nn.ModuleDict({'vit': vit, 'mlp': with_norm, 'resnet': grouped})
    groups, refused = discover(model, [build(UNITS, u, '') for u in (NEURONS, CHANNELS)])
    assert refused == {
        'mlp': 'a norm in between',
        'resnet.layer1.0': 'conv2 has 2 groups',
    }
    assert not any(group.name.startswith('resnet.layer1.0.') for group in groups)
    with pytest.raises(UserError, match='AttentionHeads finds nothing .*a norm stands between'):
        discover(vit, [build(UNITS, HEADS, '')])


def test_post_norm_layers_are_not_dropped():
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=20, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
        do_layer_norm_before=False, word_embed_proj_dim=32,
    )  # fmt: skip
    with pytest.raises(UserError, match='a post-norm layer'):
        names(OPTForCausalLM(config), LAYERS)
    with pytest.raises(UserError, match='PreNormLayers finds nothing'):
        names(BY_NAME['torch_encoder'].dense(), LAYERS)


def test_attention_with_bias_k_is_refused():
    model = nn.ModuleDict({'a': nn.MultiheadAttention(8, 2, add_bias_kv=True)})
    with pytest.raises(UserError, match='bias_k, bias_v and add_zero_attn are not handled'):
        names(model, HEADS)


def test_overlapping_groups_are_refused():
    case = BY_NAME['vit']
    with pytest.raises(UserError, match="two unit groups are named 'blocks.0.attn'"):
        names(case.dense(), HEADS, HEADS)
    from dataclasses import replace

    renamed = replace(case.groups()[0], name='other')
    with pytest.raises(UserError, match="'blocks.0.attn' and 'other' both cut dimension 0 of"):
        check_disjoint(case.dense(), [case.groups()[0], renamed])


def test_a_family_registers_its_own_layout():
    class OwnAttention(tiny.MaskedCrossAttention):
        pass

    seen = []
    layouts = dict(AttentionHeads.layouts)
    try:

        @AttentionHeads.layout('OwnAttention')
        def own(name, module):
            seen.append(name)
            return []

        AttentionHeads().find(nn.ModuleDict({'x': OwnAttention()}))
    finally:
        AttentionHeads.layouts.clear()
        AttentionHeads.layouts.update(layouts)
    assert seen == ['x']


def test_sum_per_unit_by_hand():
    values = torch.arange(24.0).view(6, 4)
    assert sum_per_unit(values, Cut('w', 0, 2), 3).tolist() == [28, 92, 156]
    assert sum_per_unit(values, Cut('w', 0, 1, (0, 3)), 3).tolist() == [60, 92, 124]
    assert sum_per_unit(values, Cut('w', 1, 2), 2).tolist() == [126, 150]
    table = ((3, 0), (2, 1))
    assert sum_per_unit(values, Cut('w', 1, table=table), 2).tolist() == [138, 138]
    assert sum_per_unit(values, Cut('w', None), 1).tolist() == [276]

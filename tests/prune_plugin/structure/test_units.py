"""Finding units: patterns, numbering, and modules that must not be cut."""

from copy import deepcopy

import pytest
import tiny_models as tiny
import tiny_yolo
import torch
from cases import (
    BRANCHES,
    BY_NAME,
    CHANNELS,
    HEADS,
    LAYERS,
    NEURONS,
    PYRAMID,
    STACKS,
    random_state,
)
from torch import nn

from projects.prune_plugin import UNITS, StructuredPruner, UserError, mask, slim
from projects.prune_plugin.common.registry import build
from projects.prune_plugin.structure.unit_group import UnitGroup, form_grid, owners_along
from projects.prune_plugin.structure.units import AttentionHeads, Cut, discover, sum_per_unit
from projects.prune_plugin.structure.units.finder import check_disjoint


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
        UserError, match=rf"prune_cfg.{key}: 'layers' matches nothing; unit groups here are blocks"
    ):
        names(model, HEADS, **{key: ['layers']})
    with pytest.raises(UserError, match=r"'attn' matches nothing"):  # from a name's start
        names(model, HEADS, **{key: ['attn']})


def test_excluding_everything_is_refused():
    with pytest.raises(UserError, match='prune_cfg.exclude leaves no unit group'):
        names(BY_NAME['vit'].dense(), HEADS, exclude=['blocks'])


def test_finders_that_find_nothing_are_named():
    with pytest.raises(UserError, match='BottleneckChannels finds nothing in this model'):
        names(BY_NAME['vit'].dense(), HEADS, CHANNELS)
    with pytest.raises(
        UserError,
        match=r'no units of the known kinds \([^)]*\) to prune; to discover',
    ):
        StructuredPruner().plan(nn.Linear(3, 3))
    with pytest.raises(UserError, match='set prune_cfg.profile.input_shape'):
        StructuredPruner().plan(nn.Conv2d(3, 3, 3))


def test_channels_that_a_backbone_puts_out_stay():
    """SSD's VGG puts out what its fifth and its last convolution write."""
    pytest.importorskip('mmdet.models')
    torch.manual_seed(0)
    model, images = tiny_yolo.ssd(), torch.randn(1, 3, 64, 64)
    groups, _ = discover(model, [build(UNITS, STACKS, '')])
    widths = {group.name: group.size for group in groups}
    hidden = {0: 64, 3: 128, 6: 256, 8: 256, 13: 512, 16: 512, 18: 512, 21: 1024}
    assert widths == {f'features.{i}': width for i, width in hidden.items()}
    state = random_state(groups, 'half')
    masked, cut = mask(deepcopy(model), state), slim(deepcopy(model), state)
    with torch.no_grad():
        expected, found = masked(images), cut(images)
    assert [tuple(x.shape[1:]) for x in found] == [(512, 8, 8), (1024, 4, 4)]
    for x, y in zip(expected, found, strict=True):
        torch.testing.assert_close(x, y)


def test_other_classes_of_the_same_name_are_left_alone():
    """Without mmcv's modules nobody knows what stands between the convolutions."""

    class ResBlock(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    class BasicBlock(ResBlock):
        pass

    models = {'not laid out as in mmdet': (ResBlock(), STACKS),
              'no norm after conv1': (BasicBlock(), CHANNELS)}  # fmt: skip
    for reason, (model, unit) in models.items():
        assert build(UNITS, unit, '').find(model) == ([], {type(model).__name__: reason})


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
        'resnet.layer1.0': 'resnet.layer1.0.conv2 has 2 groups',
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


class OwnWay(nn.Sequential):
    """A chain that doesn't run its layers one after the other."""

    def forward(self, x):
        return self[2](self[0](x).flip(-1))


def chain(*between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), *between, nn.Linear(8, 2))


def test_branches_are_cut_only_where_zeros_stay_zeros():
    shared, norm = nn.Linear(8, 8), nn.LayerNorm(8)
    relu, sigmoid = nn.ReLU(), nn.Sigmoid()
    model = nn.ModuleDict({
        'plain': chain(nn.ReLU()),
        'normed': chain(nn.LayerNorm(8), nn.Dropout(), nn.Tanh()),
        'sigmoid': chain(nn.Sigmoid()),
        'softmax': chain(nn.Softmax(-1)),
        'unflatten': chain(nn.Unflatten(-1, (1, 8))),
        'group_norm': chain(nn.GroupNorm(2, 8)),
        'no_weight': chain(nn.LayerNorm(8, elementwise_affine=False)),
        'over_length': chain(nn.BatchNorm1d(5), nn.ReLU()),
        'over_more': chain(nn.LayerNorm((3, 8))),
        'own_way': OwnWay(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)),
        'layer_twice': chain(shared, relu, shared, relu),
        'norm_twice': chain(norm, nn.ReLU(), nn.Linear(8, 8), norm),
        'relu_twice': chain(relu, nn.Linear(8, 8), relu),
        'partly': chain(nn.Sigmoid(), nn.Linear(8, 8), nn.ReLU()),
        'sigmoid_twice': chain(sigmoid, nn.Linear(8, 8), sigmoid),
        'one': nn.Sequential(nn.Linear(4, 8), nn.ReLU()),
    })  # fmt: skip
    found = names(model, BRANCHES)
    assert found == ['plain.0', 'normed.0', 'relu_twice.0', 'relu_twice.2', 'partly.2']


def test_pyramids_that_cannot_be_cut_are_refused():
    pytest.importorskip('mmcv.ops')
    from mmdet.models.necks import FPN

    grouped = dict(norm_cfg=dict(type='GN', num_groups=2))
    gated = dict(act_cfg=dict(type='Sigmoid'))
    for options, reason in (
        (grouped, 'lateral_convs.0 has a group norm'),
        (gated, 'lateral_convs.0.activate is a Sigmoid'),
        (dict(conv_cfg=dict(type='ConvWS')), 'lateral_convs.0.conv is a ConvWS2d'),
    ):
        with pytest.raises(UserError, match=f'FPNChannels finds nothing .*{reason}'):
            names(FPN([4, 8], 6, num_outs=2, **options), PYRAMID)


def test_rows_and_columns_may_cross():
    """By pairs of units: heads and points own all rows, and share equally many."""
    heads = owners_along(Cut('w', 0, 6), 2, 12)
    points = owners_along(Cut('w', 0, 2, (0, 6)), 3, 12)
    assert heads.tolist() == [0] * 6 + [1] * 6 and points.tolist() == [0, 0, 1, 1, 2, 2] * 2
    assert form_grid(heads, points) and form_grid(points, heads)
    assert not form_grid(heads, heads)  # the same rows: unit 0 never meets unit 1
    assert not form_grid(heads, owners_along(Cut('w', 0, 2), 6, 12))  # halves of heads
    assert not form_grid(heads[:11], points[:11])  # a table with a hole
    assert not form_grid(
        heads, owners_along(Cut('w', 0, 2, (0, 6)), 2, 12)
    )  # columns that nobody owns


def test_only_two_groups_may_cross():
    model = nn.ModuleDict({'a': nn.Linear(3, 12)})
    ways = dict(heads=(2, 6, (0,)), points=(3, 2, (0, 6)), signs=(2, 1, tuple(range(0, 12, 2))))
    groups = [
        UnitGroup(name, name, size, (Cut('a.weight', 0, width, sections),))
        for name, (size, width, sections) in ways.items()
    ]
    check_disjoint(model, groups[:2])
    check_disjoint(model, groups[1:])
    with pytest.raises(UserError, match="'heads' and 'signs' both cut dimension 0 of 'a.weight'"):
        check_disjoint(model, groups)


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


def test_heads_with_a_forward_pass_of_their_own_are_refused():
    pytest.importorskip('mmdet.models')
    import tiny_detectors as detectors

    for head, unit in ((detectors.retina(None), STACKS), (detectors.boxes(), BRANCHES)):
        method = 'forward_single' if unit is STACKS else 'forward'
        kind = type(head.head)
        head.head.__class__ = type('Own', (kind,), {method: getattr(kind, method)})
        with pytest.raises(UserError, match='a forward pass of its own'):
            names(head, unit)


def test_deformable_convolutions_with_several_offset_groups_are_refused():
    pytest.importorskip('mmcv.ops')
    import tiny_detectors as detectors

    model = detectors.deformed_resnet()
    model.layer2[0].conv2.deform_groups = 2
    _, refused = discover(model, [build(UNITS, CHANNELS, '')])
    assert refused == {'layer2.0': 'layer2.0.conv2 has 2 groups of offsets'}


def test_emptied_modules_have_no_units_to_prune_again():
    model = tiny.encoder().eval()
    pruner = StructuredPruner([HEADS], budget=dict(type='units', ratio=0.5), min_keep=0)
    state = pruner.plan(model).state
    emptied, kept = list(state.kept)
    state.kept[emptied], state.kept[kept] = torch.arange(0), torch.arange(4)
    again = pruner.plan(slim(model, state))
    assert list(again.state.groups) == [kept]
    assert again.refused[emptied] == 'no units are left'
    assert slim(model, again.state)(*tiny.sequence()).isfinite().all()

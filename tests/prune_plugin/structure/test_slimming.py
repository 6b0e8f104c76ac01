"""Cutting: what doesn't fit is refused whole, other kinds of units combine, builders build slim."""

from copy import deepcopy

import pytest
import tiny_models as tiny
import torch
from cases import BY_NAME, CHANNELS, COUPLED, HEADS, LAYERS, NEURONS, flat, random_state
from mmengine.registry import MODELS
from torch import nn

from projects.prune_plugin import (
    UNITS,
    PruneState,
    StructuredPruner,
    UserError,
    compose,
    mask,
    slim,
)
from projects.prune_plugin.common.registry import build
from projects.prune_plugin.structure.modules import SlimMultiheadAttention
from projects.prune_plugin.structure.units import discover


def groups_of(model, *units):
    return discover(model, [build(UNITS, unit, '') for unit in units])[0]


def test_another_model_is_refused_before_anything_is_touched():
    state = BY_NAME['vit'].state('half')
    for other in (tiny.timm_vit(depth=2), tiny.timm_vit(depth=3, mlp='SwiGLU'), tiny.encoder()):
        before = {n: t for n, t in other.state_dict(keep_vars=True).items()}
        for act in (slim, mask):
            with pytest.raises(UserError, match=r'prune_state\.groups\[.* this model|has no'):
                act(other, state)
        after = other.state_dict(keep_vars=True)
        assert after.keys() == before.keys() and all(after[n] is before[n] for n in before)


def test_a_narrower_model_is_refused():
    state = BY_NAME['torch_encoder'].state('half')
    layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True)
    narrow = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    with pytest.raises(UserError, match=r"'layers.0.linear1'.* is 48 in this model, at least 64"):
        slim(narrow, state)


def test_a_slim_model_is_not_cut_by_the_same_state_again():
    case = BY_NAME['vit']
    slimmed = slim(case.dense(), case.state('half'))
    with pytest.raises(UserError, match='belongs to another model'):
        slim(slimmed, case.state('half'))


def test_tied_parameters_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = tiny.timm_vit(depth=1).blocks[0].mlp
            self.b = nn.Linear(48, 192)
            self.b.weight = self.a.fc1.weight

        def forward(self, x):
            return self.a(x) + self.b(x).sum(-1, keepdim=True)

    model = Tied()
    slim(model, random_state(groups_of(model, NEURONS), 'half'))
    assert model.b.weight is model.a.fc1.weight and model.b.weight.shape == (96, 48)


def test_width_attributes_follow():
    model = slim(BY_NAME['resnet18-channel'].dense(), BY_NAME['resnet18-channel'].state('half'))
    block = model.layer2[0]
    assert (block.conv1.out_channels, block.bn1.num_features, block.conv2.in_channels) == (64,) * 3
    vit = slim(BY_NAME['vit'].dense(), BY_NAME['vit'].state('half'))
    attention, mlp = vit.blocks[0].attn, vit.blocks[0].mlp
    assert (attention.num_heads, attention.attn_dim, attention.qkv.out_features) == (2, 24, 72)
    assert attention.proj.in_features == 24
    assert (mlp.fc1.out_features, mlp.fc2.in_features) == (96, 96)
    opt = slim(BY_NAME['opt'].dense(), BY_NAME['opt'].state('half'))
    assert opt.model.decoder.layers[0].self_attn.num_heads == 2


def test_requires_grad_and_dtype_survive():
    dense = BY_NAME['vit'].dense().double().requires_grad_(False)
    slimmed = slim(dense, BY_NAME['vit'].state('half'))
    assert all(p.dtype == torch.float64 and not p.requires_grad for p in slimmed.parameters())


def test_heads_and_layers_together():
    """A group in a layer that goes as a whole is no obstacle."""
    dense = BY_NAME['vit-layers'].dense()
    state = random_state(groups_of(dense, HEADS, NEURONS, LAYERS), 'half')
    masked = BY_NAME['vit'].run(mask(deepcopy(dense), state))
    slimmed = BY_NAME['vit'].run(slim(dense, state))
    assert (masked - slimmed).abs().max() < 1e-5 * masked.abs().max()


@pytest.mark.parametrize(
    ('name', 'first', 'second'),
    [
        ('vit-layers', (HEADS, NEURONS), (LAYERS,)),
        ('vit-layers', (LAYERS,), (HEADS, NEURONS)),
        ('resnet18-channel', (CHANNELS,), (COUPLED,)),
        ('resnet18-channel', (COUPLED,), (CHANNELS,)),
        ('llama-gqa', (NEURONS,), (HEADS,)),
        ('llama-gqa', (HEADS,), (LAYERS,)),
        ('opt', (HEADS, NEURONS), (LAYERS,)),
        ('torch_encoder', (HEADS,), (HEADS, NEURONS)),
    ],
)
def test_other_units_the_second_time(name, first, second):
    case = BY_NAME[name]
    state = random_state(groups_of(case.dense(), *first), 'half', seed=4)
    once = slim(case.dense(), state)
    again = random_state(groups_of(once, *second), 'half', seed=5)
    twice = slim(once, again)
    direct = slim(case.dense(), PruneState.from_dict(compose(state, again).to_dict()))
    assert direct.state_dict().keys() == twice.state_dict().keys()
    assert torch.equal(case.run(direct), case.run(twice))


@pytest.mark.parametrize('case_name', ['mmcv_decoder', 'torch_decoder', 'torch_encoder'])
def test_slim_attention_without_cuts_is_the_dense_one(case_name):
    case = BY_NAME[case_name]
    model = case.dense()
    before = case.run(model)
    for module in list(model.modules()):
        for child_name, child in module.named_children():
            if isinstance(child, nn.MultiheadAttention):
                setattr(module, child_name, SlimMultiheadAttention(child))
    after = case.run(model)
    assert (before - after).abs().max() < 1e-5 * before.abs().max()


@pytest.mark.parametrize('batch_first', [True, False])
@pytest.mark.parametrize('need_weights', [True, False])
def test_slim_attention_answers_like_the_dense_one(batch_first, need_weights):
    dense = tiny.randomised(nn.MultiheadAttention(16, 4, batch_first=batch_first))
    ours = SlimMultiheadAttention(dense).eval()
    x, memory = torch.randn(3, 3, 16), torch.randn(3, 3, 16)
    float_mask, bool_mask = torch.randn(12, 3, 3), torch.zeros(3, 3, dtype=torch.bool)
    bool_mask[0, 2] = True
    padding = torch.tensor([[False, False, True]] * 3)
    for kwargs in (
        {},
        dict(attn_mask=float_mask),
        dict(attn_mask=bool_mask),
        dict(key_padding_mask=padding, attn_mask=bool_mask),
        dict(average_attn_weights=False),
    ):
        expected = dense(x, memory, memory, need_weights=need_weights, **kwargs)
        found = ours(x, memory, memory, need_weights=need_weights, **kwargs)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
        assert (found[1] is None) == (not need_weights)
        if need_weights:
            torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-6)
    single = dense(x[0], memory[0], memory[0])[0]
    torch.testing.assert_close(ours(x[0], memory[0], memory[0])[0], single, rtol=1e-5, atol=1e-6)
    assert ours.state_dict().keys() == dense.state_dict().keys()


@pytest.mark.parametrize('name', ['llama-gqa', 'llama-layers'])
@pytest.mark.parametrize('level', ['half', 'one', 'none'])
def test_slim_language_models_generate(name, level):
    """With a key-value cache, token by token, as the masked model does."""
    case = BY_NAME[name]
    state = case.state(level)
    (prompt,) = case.inputs()

    def generate(model):
        return model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, do_sample=False,
            pad_token_id=0, eos_token_id=None,
        )  # fmt: skip

    expected = generate(mask(case.dense(), state))
    assert torch.equal(generate(slim(case.dense(), state)), expected)


def test_slim_model_through_mmengine(tmp_path):
    pytest.importorskip('projects.vit')
    inner = dict(
        type='TimmClassifier', arch='vit_tiny_patch16_224', num_classes=10,
        model_kwargs=dict(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=4),
    )  # fmt: skip
    dense = MODELS.build(deepcopy(inner)).eval()
    pruner = StructuredPruner([HEADS, NEURONS], budget=dict(type='params', ratio=0.4))
    state = pruner.plan(dense).state
    slimmed = slim(deepcopy(dense), state)
    path = tmp_path / 'slim.pth'
    meta = dict(prune_state=state.to_dict())
    torch.save(dict(meta=meta, state_dict=slimmed.state_dict()), path)
    for source in (str(path), state.to_dict()):
        cfg = dict(type='SlimModel', model=deepcopy(inner), prune_state=source)
        before = deepcopy(cfg)
        model = MODELS.build(cfg).eval()
        assert cfg == before
        assert type(model) is type(dense) and model.prune_state.digest() == state.digest()
        model.init_weights()
        model.load_state_dict(slimmed.state_dict())
        images = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            assert torch.equal(flat(model(images)), flat(slimmed(images)))
    smaller = dict(inner, model_kwargs=dict(inner['model_kwargs'], depth=1))
    with pytest.raises(UserError, match=r"prune_state\.groups\['backbone.blocks.1"):
        MODELS.build(dict(type='SlimModel', model=smaller, prune_state=str(path)))

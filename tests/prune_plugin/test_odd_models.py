"""Models that people write, and that names of classes tell nothing true about: right, or refused."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from projects.prune_plugin import UserError, build_pruner, mask, slim
from projects.prune_plugin.methods.criteria import base as criterion

IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))
HEADS = dict(units=[dict(type='AttentionHeads')], budget=dict(type='units', ratio=0.5))
PARAMS = dict(budget=dict(type='params', ratio=0.3))


def vit():
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    sizes = dict(img_size=32, patch_size=8, embed_dim=64, depth=3, num_heads=4, num_classes=10)
    return timm.create_model('vit_tiny_patch16_224', **sizes).eval()


def check(model, x, cfg=PARAMS, call=None):
    """Slim equals masked; the plan."""
    call = call or (lambda m: m(x))
    plan = build_pruner(cfg).plan(model, example_inputs=x)
    with torch.no_grad():
        one = call(slim(deepcopy(model), plan.state).eval())
        other = call(mask(deepcopy(model), plan.state).eval())
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    return plan


def test_an_mlp_whose_halves_multiply():
    from timm.layers import Mlp

    class Halves(Mlp):
        def forward(self, x):
            a, b = self.fc1(x).chunk(2, -1)
            return self.fc2(torch.cat([a * b, b], -1))

    model = vit()
    for block in model.blocks:
        block.mlp = Halves(64, 256)
    plan = check(model.eval(), IMAGE)
    assert {group.kind for group in plan.groups} == {'attention', 'mlp'}


def test_a_basic_block_with_a_forward_pass_of_its_own():
    resnet = pytest.importorskip('torchvision.models.resnet')

    class Rolled(resnet.BasicBlock):
        def forward(self, x):
            y = self.relu(self.bn1(self.conv1(x)))
            y = y * y.mean((1, 2, 3), keepdim=True) + y.roll(1, 1)
            y = self.bn2(self.conv2(y))
            return self.relu(y + (x if self.downsample is None else self.downsample(x)))

    torch.manual_seed(0)
    check(resnet.ResNet(Rolled, [1, 1, 1, 1], num_classes=10).eval(), IMAGE)


@pytest.mark.parametrize('first', [True, False])
def test_a_padding_mask_for_a_transformer_encoder(first):
    """PyTorch would hand the layers nested tensors, which only its own attention takes."""
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2).eval()
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    cfg = HEADS if first else {**HEADS, 'exclude': ['layers.0.*']}
    check(model, TOKENS, cfg, lambda m: m(TOKENS, src_key_padding_mask=padding)[~padding])


def test_own_classes_with_known_names():
    class FFN(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

        def forward(self, x):
            return self.down(torch.relu(self.up(x)))

    kinds = [type(name, (FFN,), {}) for name in ('FFN', 'LlamaMLP', 'SwiGLU', 'SECOND')]
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    plan = check(nn.Sequential(*(kind() for kind in kinds), layer).eval(), TOKENS)
    assert len(plan.groups) >= 6


def test_weight_norm_on_one_layer():
    model = vit()
    nn.utils.parametrizations.weight_norm(model.blocks[0].mlp.fc1)
    check(model.eval(), IMAGE)


def test_old_weight_norm_on_the_head():
    model = vit()
    nn.utils.weight_norm(model.head)
    check(model, IMAGE)


def test_one_attention_under_two_names():
    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.MultiheadAttention(32, 4, batch_first=True)
            self.alias = self.a
            self.f = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)

        def forward(self, x):
            return self.f(self.alias(x, x, x)[0] + self.a(x, x, x)[0])

    torch.manual_seed(0)
    plan = check(Twin().eval(), TOKENS, HEADS)
    assert [group.name for group in plan.groups] == ['a', 'f.self_attn']


def test_a_hidden_layer_that_is_read_from_outside():
    class Peek(nn.Module):
        def __init__(self):
            super().__init__()
            self.v, self.extra = vit(), nn.Linear(256, 3)

        def forward(self, x):
            hidden = self.v.blocks[0].mlp.fc1(self.v.patch_embed(x)).mean(1)
            return torch.cat([self.v(x), self.extra(hidden)], 1)

    check(Peek().eval(), IMAGE)


def test_hooks_of_a_converted_module_go_on():
    model, seen = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).train(), []
    before = model.self_attn.register_forward_pre_hook(lambda *_: seen.append('before'))
    model.self_attn.register_forward_hook(lambda *_: seen.append('after'))
    plan = build_pruner(HEADS).plan(model)
    slim(model, plan.state)(TOKENS)
    assert seen == ['before', 'after']
    before.remove()  # the handle is still good
    model(TOKENS)
    assert seen == ['before', 'after', 'after']


@pytest.mark.parametrize('batches', [[], (), iter(())], ids=lambda value: type(value).__name__)
def test_no_batches(batches):
    pruner = build_pruner(dict(criterion=dict(type='Taylor'), budget=dict(ratio=0.3)))
    for data in (batches, lambda settings: batches):
        with pytest.raises(UserError, match='the calibration data holds no batches'):
            pruner.plan(vit(), data, loss=lambda m, b: m(b).mean())


@pytest.mark.parametrize('data', [3, 'text', {'inputs': 1}, torch.ones(2)], ids=str)
def test_something_else_as_batches(data):
    pruner = build_pruner(dict(criterion=dict(type='Taylor'), budget=dict(ratio=0.3)))
    with pytest.raises(
        UserError, match='the calibration data is a .*; it must be a list of batches'
    ):
        pruner.plan(vit(), data, loss=lambda m, b: m(b).mean())


def test_a_list_of_batches_and_a_loader_give_the_same():
    torch.manual_seed(1)
    images = torch.randn(6, 3, 32, 32)
    pruner = build_pruner(dict(criterion=dict(type='Taylor'), budget=dict(ratio=0.3)))
    loss = lambda m, b: m(b).square().mean()  # noqa: E731
    loader = torch.utils.data.DataLoader(images, batch_size=2)
    plans = [
        pruner.plan(vit(), data, loss=loss)
        for data in (list(images.split(2)), loader, lambda settings: loader)
    ]
    for other in plans[1:]:
        for a, b in zip(plans[0].importance, other.importance, strict=True):
            torch.testing.assert_close(a, b)


def test_a_loss_that_depends_on_nothing():
    pruner = build_pruner(dict(criterion=dict(type='Taylor'), budget=dict(ratio=0.3)))
    with pytest.raises(UserError, match='Taylor scores every unit 0: the loss depends on none'):
        pruner.plan(vit(), [IMAGE], loss=lambda m, b: 0.0 * m(b).mean())


def test_weights_that_are_all_zero(monkeypatch):
    said, model = [], vit()
    monkeypatch.setattr(criterion, 'print_log', lambda text, *_: said.append(text))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    plan = build_pruner(PARAMS).plan(model)
    assert said == ['L1 scores every unit 0: which of them go is arbitrary']
    assert plan.result.achieved >= 0.3


def test_a_plain_module_needs_a_loss():
    pruner = build_pruner(dict(criterion=dict(type='Taylor'), budget=dict(ratio=0.3)))
    with pytest.raises(UserError, match=r'is no model of MMEngine.*plan\(model, data, loss=...\)'):
        pruner.plan(vit(), [IMAGE])


@pytest.mark.parametrize('change', [slim, mask])
def test_a_plan_is_no_state(change):
    model = vit()
    plan = build_pruner(PARAMS).plan(model)
    for given in (plan, plan.state.to_dict()):
        with pytest.raises(UserError, match='is no prune state; give plan.state'):
            change(model, given)

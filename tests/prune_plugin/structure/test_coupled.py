"""Coupled channels where indices are not one to one: depthwise, concatenation, flattening."""

import copy

import pytest
import torch
from torch import nn

from projects.prune_plugin import UserError, build_pruner, mask, slim
from projects.prune_plugin.structure.prune_state import PruneState


class Mixed(nn.Module):
    """A depthwise branch and a plain one, concatenated, then flattened into a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.branch = nn.Conv2d(3, 6, 1)
        self.mix = nn.Conv2d(14, 4, 1)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.head = nn.Linear(64, 5)

    def forward(self, x):
        left = self.norm(self.depthwise(self.stem(x)))
        y = self.mix(torch.cat([left, self.branch(x)], 1).relu())
        return self.head(self.pool(y).flatten(1))


class Features(Mixed):
    """Hands the mixed channels out as well: whoever reads them counts on their number."""

    def forward(self, x):
        left = self.norm(self.depthwise(self.stem(x)))
        y = self.mix(torch.cat([left, self.branch(x)], 1).relu())
        return y, self.head(self.pool(y).flatten(1))


def pruner(**kwargs):
    units = [dict(type='CoupledChannels', input_shape=(3, 8, 8), **kwargs)]
    return build_pruner(dict(units=units, budget=dict(type='units', ratio=0.5)))


def build(cls):
    torch.manual_seed(0)
    model = cls().eval()
    for buffer in (model.norm.running_mean, model.norm.running_var):
        buffer.uniform_(0.5, 1.5)
    return model


def test_masked_equals_slim_with_depthwise_and_concatenation():
    model, x = build(Mixed), torch.randn(2, 3, 8, 8)
    state = pruner().plan(model).state
    assert {g.name: g.size for g in state.groups.values()} == {'stem': 8, 'branch': 6, 'mix': 4}
    left = {name: len(kept) for name, kept in state.kept.items()}
    masked = mask(copy.deepcopy(model), state)(x)
    cut = slim(copy.deepcopy(model), PruneState.from_dict(state.to_dict()))
    assert torch.allclose(cut(x), masked, atol=1e-5 * float(masked.detach().abs().max()))
    assert cut.depthwise.groups == cut.depthwise.in_channels == left['stem']
    assert cut.mix.weight.shape[:2] == (left['mix'], left['stem'] + left['branch'])
    assert cut.head.in_features == 16 * left['mix']


def test_pruning_one_branch_and_then_the_other_composes():
    from projects.prune_plugin import compose

    model, x = build(Mixed), torch.randn(2, 3, 8, 8)
    unit = [dict(type='CoupledChannels', input_shape=(3, 8, 8))]
    half = dict(units=unit, budget=dict(type='units', ratio=0.5))
    first = build_pruner(dict(half, include=['stem'])).plan(model).state
    once = slim(copy.deepcopy(model), first)
    second = build_pruner(dict(half, include=['branch'])).plan(once).state
    twice = slim(copy.deepcopy(once), second)
    direct = slim(copy.deepcopy(model), compose(first, second))
    assert torch.equal(direct.mix.weight, twice.mix.weight)
    assert torch.equal(direct(x), twice(x))


def test_channels_that_leave_the_model_stay():
    plan = pruner().plan(build(Features))
    assert {group.name for group in plan.groups} == {'stem', 'branch'}
    assert plan.refused['mix'] == plan.refused['head'] == 'it is an output of the model'


def test_channels_that_leave_the_traced_part_stay():
    whole = nn.Sequential(build(Mixed), nn.Linear(5, 2))
    plan = pruner(submodule='0').plan(whole)
    assert '0.head' in plan.refused and {g.name for g in plan.groups} == {
        '0.stem',
        '0.branch',
        '0.mix',
    }


def test_bad_arguments_are_named():
    with pytest.raises(UserError, match='input_shape is 3'):
        build_pruner(dict(units=[dict(type='CoupledChannels', input_shape=3)]))
    with pytest.raises(UserError, match="submodule 'body' is not in the model"):
        pruner(submodule='body').plan(build(Mixed))


class Flattened(Mixed):
    """Flattens concatenated channels: a channel is 16 columns of the head."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(14 * 16, 5)

    def forward(self, x):
        left = self.norm(self.depthwise(self.stem(x)))
        return self.head(self.pool(torch.cat([left, self.branch(x)], 1)).flatten(1))


class Looped(Mixed):
    """Adds a convolution of both branches to what it read: its channels are those of two layers."""

    def __init__(self):
        super().__init__()
        self.loop = nn.Conv2d(14, 14, 1)

    def forward(self, x):
        left = self.norm(self.depthwise(self.stem(x)))
        y = self.loop(self.loop(torch.cat([left, self.branch(x)], 1)).relu())
        return self.head(self.pool(self.mix(y)).flatten(1))


def test_concatenated_and_flattened_channels():
    model, x = build(Flattened), torch.randn(2, 3, 8, 8)
    plan = pruner().plan(model)
    assert {g.name: g.size for g in plan.groups} == {'stem': 8, 'branch': 6}
    masked = mask(copy.deepcopy(model), plan.state)(x)
    assert torch.allclose(slim(model, plan.state)(x), masked, atol=1e-5)


def test_layers_with_some_of_the_units_stay():
    model, x = build(Looped), torch.randn(2, 3, 8, 8)
    plan = pruner().plan(model)
    assert list(plan.state.groups) == ['mix']
    assert plan.refused['loop'].startswith('cut, it fails')
    masked = mask(copy.deepcopy(model), plan.state)(x)
    assert torch.allclose(slim(model, plan.state)(x), masked, atol=1e-5)


def test_tracing_leaves_each_module_in_its_mode():
    model = build(Mixed).train()
    model.norm.eval()
    pruner().plan(model)
    assert model.training and model.stem.training and not model.norm.training


def test_tracing_in_the_type_of_the_weights():
    model = build(Mixed).double()
    assert len(pruner().plan(model).groups) == 3


class Block(nn.Module):
    """A pre-norm block of a transformer."""

    def __init__(self, norm):
        super().__init__()
        self.norm1, self.norm2 = norm(32), norm(32)
        self.qkv, self.proj = nn.Linear(32, 96), nn.Linear(32, 32)
        self.fc1, self.fc2 = nn.Linear(32, 48), nn.Linear(48, 32)

    def forward(self, x):
        q, k, v = (
            t.unflatten(-1, (4, 8)).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        x = x + self.proj(
            (q @ k.transpose(-2, -1)).softmax(-1).matmul(v).transpose(1, 2).flatten(2)
        )
        return x + self.fc2(self.fc1(self.norm2(x)).relu())


class Transformer(nn.Module):
    """Two blocks on a residual stream of 32."""

    def __init__(self, norm):
        super().__init__()
        self.stem, self.position = nn.Linear(10, 32), nn.Parameter(torch.randn(1, 6, 32))
        self.blocks = nn.Sequential(Block(norm), Block(norm))
        self.norm, self.head = norm(32), nn.Linear(32, 5)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.stem(x) + self.position)))


@pytest.mark.parametrize('norm', [nn.LayerNorm, type('RMSNorm', (nn.RMSNorm,), {})])
@pytest.mark.parametrize('shared', [True, False])
def test_the_residual_stream_of_a_transformer(norm, shared):
    torch.manual_seed(0)
    model, x = Transformer(norm).eval().double(), torch.randn(3, 6, 10).double()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    units = [dict(type='CoupledChannels', shared=shared)]
    cfg = dict(units=units, budget=dict(type='units', ratio=0.25), allocator=dict(type='Uniform'))
    plan = build_pruner(cfg).plan(model, example_inputs=x)
    streams = [group for group in plan.groups if group.size == 32]
    assert len(streams) == 1 and len(plan.groups) == (1 if shared else 3)
    assert {group.kind for group in plan.groups} == {'coupled'}
    assert all(how.startswith('discovered, ') for how in plan.scored.proofs.values())
    state = PruneState.from_dict(plan.state.to_dict())
    masked = mask(copy.deepcopy(model), state)(x)
    cut = slim(copy.deepcopy(model), state)
    assert cut.stem.weight.shape == (24, 10) and cut.position.shape == (1, 6, 24)
    assert cut.blocks[1].qkv.weight.shape == (96, 24)
    assert float((cut(x) - masked).detach().abs().max()) < 1e-9
    # What the masked model computes, by an independent definition: the stream times zeros and ones.
    kept = torch.zeros(32).double()
    kept[state.kept[streams[0].name]] = 1
    if shared:
        hooks = [m.register_forward_hook(lambda m, args, out: out * kept)
                 for m in (model.stem, *(b.proj for b in model.blocks), *(b.fc2 for b in model.blocks),
                           *(m for m in model.modules() if isinstance(m, norm)))]  # fmt: skip
        model.position.data *= kept
        assert float((model(x) - masked).detach().abs().max()) < 1e-9
        assert len(hooks) == 10


def test_the_stream_stays_unless_asked_for():
    torch.manual_seed(0)
    model, x = Transformer(nn.LayerNorm).eval(), torch.randn(3, 6, 10)
    sizes = {g.name: g.size for g in pruner_of(None).plan(model, example_inputs=x).groups}
    assert sizes and 32 not in sizes.values()


def pruner_of(units):
    return build_pruner(dict(units=units, budget=dict(type='units', ratio=0.5)))


def test_an_example_input_is_asked_for():
    with pytest.raises(
        UserError, match='CoupledChannels needs an example input: set its input_shape'
    ):
        pruner_of([dict(type='CoupledChannels')]).plan(build(Mixed))
    plan = pruner_of([dict(type='CoupledChannels')]).plan(
        build(Mixed), example_inputs=torch.randn(1, 3, 8, 8)
    )
    assert len(plan.groups) == 3
    with pytest.raises(UserError, match='the model does not run on .3, 2. .RuntimeError'):
        pruner_of([dict(type='CoupledChannels', input_shape=(3, 2))]).plan(build(Mixed))
    with torch.device('meta'), pytest.raises(UserError, match='no weights on the meta device'):
        pruner().plan(Mixed())


def test_heads_neurons_and_the_stream_in_one_knapsack():
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    model = timm.create_model(
        'vit_tiny_patch16_224', img_size=32, patch_size=8, depth=3, num_classes=7
    ).eval()
    x = torch.randn(2, 3, 32, 32)
    kinds = ('AttentionHeads', 'FFNNeurons', 'PreNormLayers', 'CoupledChannels')
    cfg = dict(units=[dict(type=kind) for kind in kinds], budget=dict(type='params', ratio=0.3))
    plan = build_pruner(cfg).plan(model, example_inputs=x)
    assert sorted({group.kind for group in plan.groups}) == ['attention', 'coupled', 'layer', 'mlp']
    cut = slim(copy.deepcopy(model), plan.state)
    left = sum(p.numel() for p in cut.parameters()) / sum(p.numel() for p in model.parameters())
    assert left == pytest.approx(0.7, abs=0.002)
    masked = mask(copy.deepcopy(model), plan.state)
    with torch.no_grad():
        assert torch.allclose(cut(x), masked(x), atol=1e-4 * float(masked(x).abs().max()))

"""Units of classes that no layout knows: found, proven, and cut so that slim equals masked."""

import copy

import pytest
import torch
from refitting import Batches
from small_modules import MODULES
from torch import Tensor, nn

from projects.prune_plugin import PruneState, StructuredPruner, UserError, mask, slim


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    """What a model gives, in evaluation mode and float64; one that draws numbers draws the same."""
    torch.manual_seed(3)
    with torch.no_grad():
        return model.double().eval()(x.double())


def stirred(model: nn.Module) -> nn.Module:
    """With noise on every parameter and statistic."""
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            if name.endswith('running_var'):
                tensor.add_(torch.rand_like(tensor))
            elif tensor.is_floating_point():
                tensor.add_(0.1 * torch.randn_like(tensor))
    return model


def planned(model: nn.Module, x: Tensor, ratio: float = 0.3, **settings):
    """A plan that removes ``ratio`` of the units of each group."""
    settings = {'criterion': dict(type='Random'), 'allocator': dict(type='Uniform')} | settings
    pruner = StructuredPruner(budget=dict(type='units', ratio=ratio), **settings)
    return pruner.plan(model, example_inputs=x)


def worst(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert one.shape == other.shape
    return float((one - other).abs().max() / other.abs().max())


def reach(model: nn.Module, groups) -> float:
    """The share of the parameters that units own something of."""
    cut = {c.name for group in groups for c in group.cuts}
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    return sum(size for name, size in sizes.items() if name in cut) / sum(sizes.values())


@pytest.mark.parametrize('name', MODULES)
@pytest.mark.parametrize('ratio', [0.3, 0.6])
def test_slim_equals_masked(name, ratio):
    """By the state alone, as read from a file, on a dense model built anew."""
    build, make_input = MODULES[name]
    torch.manual_seed(0)
    model, x = stirred(build()).eval(), make_input()
    plan = planned(model, x, ratio)
    assert reach(model, plan.groups) > 0.85
    assert plan.state.reduced
    state = PruneState.from_dict(plan.state.to_dict())
    slimmed = slim(copy.deepcopy(model), state)
    masked = mask(copy.deepcopy(model), state)
    before = outputs(copy.deepcopy(model), x)
    assert worst(outputs(slimmed, x), outputs(masked, x)) < 1e-9
    assert worst(outputs(masked, x), before) > 1e-3  # what went did something
    size = sum(p.numel() for p in slimmed.parameters())
    assert size < (1 - ratio / 2) * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize('name', ['ChunkedAttention', 'SplitConvolutions', 'Recurrent'])
def test_a_slim_model_is_pruned_again(name):
    from projects.prune_plugin import compose

    build, make_input = MODULES[name]
    torch.manual_seed(0)
    model, x = stirred(build()).eval(), make_input()
    first = planned(model, x, 0.3).state
    once = slim(copy.deepcopy(model), first)
    second = planned(once, x, 0.5).state
    twice = slim(copy.deepcopy(once), second)
    both = slim(copy.deepcopy(model), compose(first, second))
    assert worst(outputs(both, x), outputs(twice, x)) < 1e-12
    sizes = [sum(p.numel() for p in m.parameters()) for m in (model, once, twice)]
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.parametrize(
    'name', ['EinsumAttention', 'GroupedGatedAttention', 'Lstm', 'NormedAndShared']
)
def test_criteria_and_training_with_discovered_units(name):
    """Taylor scores; a training step with gradients reaches every weight that is left."""
    build, make_input = MODULES[name]
    torch.manual_seed(0)
    model, x = stirred(build()), make_input()

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch).square().mean()

    pruner = StructuredPruner(
        criterion=dict(type='Taylor', order=1), budget=dict(type='params', ratio=0.3)
    )
    data = Batches([make_input(), make_input()])
    plan = pruner.plan(model, lambda settings: data, loss=loss, example_inputs=x)
    assert all(bool((scores > 0).any()) for scores in plan.importance)
    slimmed = slim(model, plan.state).train()
    loss(slimmed, x).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in slimmed.parameters())


# Classes with names that layouts know


class FFN(nn.Module):
    """Laid out otherwise than mmcv's."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(24, 40), nn.Linear(40, 24)

    def forward(self, x):
        return x + self.down(self.up(x).relu())


class Mlp(nn.Module):
    """timm's names, but neighbours are mixed in between."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(24, 40), nn.Linear(40, 24)

    def forward(self, x):
        hidden = self.fc1(x).relu()
        return self.fc2(hidden + hidden.roll(1, -1))


class Scaled(nn.Module):
    """timm's names; the hidden width stands in a constant."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(24, 40), nn.Linear(40, 24)

    def forward(self, x):
        hidden = self.fc1(x)
        return self.fc2(hidden * hidden.shape[-1])


Scaled.__name__ = Scaled.__qualname__ = 'Mlp'


class Bottleneck(nn.Module):
    """As mmdet's Res2Net: the middle is a cascade of splits."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(16, 24, 1, bias=False)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(c) for c in (24, 24, 16))
        self.conv2 = nn.Conv2d(24, 24, 3, padding=1, bias=False)
        self.cascade = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.conv3 = nn.Conv2d(24, 16, 1, bias=False)

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        a, b, c = y.chunk(3, 1)
        b = self.cascade[0](a + b)
        c = self.cascade[1](b + c)
        y = self.bn2(self.conv2(torch.cat([a, b, c], 1))).relu()
        return x + self.bn3(self.conv3(y))


@pytest.mark.parametrize(
    'build, shape',
    [(FFN, (2, 5, 24)), (Mlp, (2, 5, 24)), (Scaled, (2, 5, 24)), (Bottleneck, (2, 16, 8, 8))],
    ids=['laid-out-otherwise', 'neighbours-mixed', 'width-in-a-constant', 'cascade'],
)  # fmt: skip
def test_known_names_of_other_classes(build, shape):
    """They are pruned rightly, or refused with the reason."""
    torch.manual_seed(0)
    model, x = stirred(nn.Sequential(build())).eval(), torch.randn(shape)
    try:
        plan = planned(model, x)
    except UserError as error:
        assert 'it computes something else' in str(error) or 'mixed' in str(error), error
        assert build in (Mlp, Scaled)
        return
    assert build in (FFN, Bottleneck)
    assert plan.state.reduced
    slimmed, masked = slim(copy.deepcopy(model), plan.state), mask(copy.deepcopy(model), plan.state)
    assert worst(outputs(slimmed, x), outputs(masked, x)) < 1e-9


def test_without_an_example_a_foreign_class_is_named():
    with pytest.raises(UserError, match=r'FFN is not laid out as the known FFN.*example_inputs'):
        StructuredPruner().plan(nn.Sequential(FFN()))


# What can't be done


class Sorted(nn.Module):
    """An operation that no rule knows, on hidden features."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(24, 40), nn.Linear(40, 24)

    def forward(self, x):
        return self.down(torch.special.bessel_j0(torch.fft.rfft(self.up(x), n=78).real))


def test_unknown_operations_are_refused_by_name():
    torch.manual_seed(0)
    with pytest.raises(UserError, match='no units that can be pruned') as error:
        planned(Sorted(), torch.randn(2, 5, 24))
    assert 'up: no rule for the operation' in str(error.value)


@pytest.mark.parametrize(
    'example, words',
    [
        (3, 'example_inputs is a int; it must be a tensor, a tuple'),
        (torch.randn(2, 5, 7), 'example_inputs: the forward pass of FFN fails on them .RuntimeError'),
        (torch.full((2, 5, 24), float('nan')), 'example_inputs hold NaN or infinite values'),
        (dict(y=torch.randn(2, 5, 24)), 'example_inputs: the forward pass of FFN fails on them .TypeError'),
    ],
)  # fmt: skip
def test_bad_examples(example, words):
    with pytest.raises(UserError, match=words):
        StructuredPruner().plan(FFN(), example_inputs=example)


@pytest.mark.parametrize('form', ['tensor', 'tuple', 'dict'])
def test_examples_of_each_form(form):
    x = torch.randn(2, 5, 24)
    example = dict(tensor=x, tuple=(x,), dict=dict(x=x))[form]
    plan = planned(FFN(), example)
    assert [(group.name, group.size) for group in plan.groups] == [('model', 40)] or plan.groups


def test_the_model_is_left_as_it_was():
    """Classes, modes, hooks, weights and random numbers."""
    build, make_input = MODULES['ChunkedAttention']
    model, x = build().train(), make_input()
    model.to_out.eval()
    weights = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    planned(model, x)
    assert torch.equal(state, torch.get_rng_state())
    assert type(model) is build and model.training and not model.to_out.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_weights_in_half_precision(dtype):
    """They are tried in float32, and the plan is that of float32."""
    build, make_input = MODULES['GroupedGatedAttention']
    torch.manual_seed(0)
    model, x = stirred(build()).eval(), make_input()
    expected = planned(model, x, criterion=dict(type='L1'))
    found = planned(copy.deepcopy(model).to(dtype), x.to(dtype), criterion=dict(type='L1'))
    assert [(g.name, g.size, g.attrs) for g in found.groups] == [
        (g.name, g.size, g.attrs) for g in expected.groups
    ]
    assert all(p.dtype == torch.float32 for p in model.parameters())


class TwoHeads(nn.Module):
    """A head that the example doesn't reach reads the same features."""

    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Linear(8, 24), nn.Linear(24, 40)
        self.heads = nn.ModuleDict(dict(a=nn.Linear(40, 3), b=nn.Linear(40, 5)))

    def forward(self, x, head='a'):
        return self.heads[head](self.body(self.stem(x).relu()).relu())


def test_what_an_unreached_module_may_read_stays():
    plan = planned(TwoHeads(), torch.randn(4, 8))
    assert [group.name for group in plan.groups] == ['stem']
    assert plan.refused['body'] == 'heads.b may read it, which the example input does not reach'


class Direct(nn.Module):
    """Calls the ``forward`` of its parts, as MMDetection does."""

    def __init__(self):
        super().__init__()
        self.stem, self.mlp = nn.Linear(8, 24), nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 24))
        self.last = nn.Linear(24, 2)

    def forward(self, x):
        return self.last(self.mlp.forward(self.stem.forward(x)))


def test_calls_of_forward_itself_are_seen():
    model, x = Direct(), torch.randn(4, 8)
    before = model.mlp.forward
    plan = planned(model, x)
    assert 'mlp' in {group.owner for group in plan.groups}
    assert 'forward' not in vars(model.mlp) and model.mlp.forward == before


class Stubborn(nn.Module):
    """Doesn't run while its operations are followed."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        from torch.utils._python_dispatch import _get_current_dispatch_mode

        if _get_current_dispatch_mode() is not None:
            raise ValueError('not with a mode')
        return self.down(self.up(x).relu())


def test_a_model_that_cannot_be_followed_is_refused():
    with pytest.raises(UserError, match='Stubborn does not run while its operations are followed'):
        planned(Stubborn(), torch.randn(4, 8))


def test_the_widths_of_a_nested_norm_class():
    """Subclasses with a forward pass of their own are norms if they compute what a norm does."""
    from projects.prune_plugin.structure.discovery.rules.norms import norm_of

    class Fast(nn.LayerNorm):
        def forward(self, x):
            return torch.nn.functional.layer_norm(
                x, (x.shape[-1],), self.weight, self.bias, self.eps
            )

    class First(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x.movedim(1, -1)).movedim(-1, 1)

    assert norm_of(Fast(8)) == norm_of(nn.LayerNorm(8)) == 'SlimLayerNorm'
    assert norm_of(First(8)) == norm_of(nn.LayerNorm((2, 8))) == ''


class Looping(nn.Module):
    """Goes through its input element by element."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        for _ in range(101):
            x = x + 0
        return self.down(self.up(x).relu())


def test_endless_loops_are_not_followed(monkeypatch):
    from torchvision.models import resnet18

    from projects.prune_plugin.structure.discovery import tracer

    monkeypatch.setattr(tracer, 'MOST', 100)
    with pytest.raises(UserError, match='Looping is not followed: it has more than 100 operations'):
        planned(Looping(), torch.randn(4, 8))
    model = nn.Sequential(resnet18(), nn.Linear(1000, 2000), nn.Linear(2000, 8), Looping()).eval()
    plan = planned(model, torch.randn(1, 3, 32, 32))  # what is known by name is pruned all the same
    assert '0.layer1.0' in {group.owner for group in plan.groups}
    assert 'more than 100 operations' in plan.refused['Sequential']


class Flagged(nn.Module):
    """A block that computes in one of two ways, as windows that are shifted or not do."""

    def __init__(self, shifted):
        super().__init__()
        self.shifted, self.heads = shifted, 4
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q @ k.mT).softmax(-1)
        if self.shifted:
            scores = scores.view(b, 1, self.heads, n, n).flip(1).view(-1, self.heads, n, n)
        return self.out((scores @ v).transpose(1, 2).reshape(b, n, c))


def test_blocks_that_differ_in_a_flag_are_tried_each():
    torch.manual_seed(0)
    model = nn.Sequential(Flagged(False), nn.LayerNorm(16), Flagged(True), nn.LayerNorm(16))
    x = torch.randn(2, 5, 16)
    pruner = StructuredPruner(budget=dict(type='units', ratio=0.5))
    plan = pruner.plan(model.eval(), example_inputs=x)
    assert [group.name for group in plan.groups if group.kind == 'attention'] == ['0', '2']
    with torch.no_grad():
        one = slim(copy.deepcopy(model), plan.state)(x)
        torch.testing.assert_close(one, mask(copy.deepcopy(model), plan.state)(x))

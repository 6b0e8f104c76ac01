"""Whatever a model does with its channels, what is offered of them can go: slim equals masked."""

from copy import deepcopy

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from projects.prune_plugin import PruneState, UserError, build_pruner, mask, slim

STEPS = (
    'conv', 'norm', 'group_norm', 'depthwise', 'grouped', 'split', 'dense', 'residual', 'gate', 'shuffle',
    'shared', 'shift', 'heads', 'mlp', 'mean', 'cat', 'halves', 'transposed', 'pool', 'stack',
)  # fmt: skip


class Step(nn.Module):
    """One of many things that are done with an image of ``width`` channels; the width stays or changes."""

    def __init__(self, kind: str, width: int, other: int):
        super().__init__()
        self.kind, self.width = kind, width
        self.out = {
            'conv': other,
            'dense': width + other,
            'cat': 2 * width,
            'transposed': other,
        }.get(kind, width)
        if kind in ('conv', 'dense', 'residual', 'shared', 'gate', 'mean'):
            self.conv = nn.Conv2d(
                width, other if kind in ('conv', 'dense') else width, 3, padding=1
            )
        if kind == 'residual':
            self.inner = nn.Conv2d(width, other, 1)
            self.conv = nn.Conv2d(other, width, 1)
        if kind == 'norm':
            self.norm = nn.BatchNorm2d(width)
        if kind == 'group_norm':
            self.norm = nn.GroupNorm(4, width)
        if kind in ('depthwise', 'grouped'):
            groups = width if kind == 'depthwise' else 4
            self.conv = nn.Conv2d(width, width, 3, padding=1, groups=groups)
        if kind == 'split':
            self.half = width // 2
            self.conv = nn.Conv2d(self.half, self.half, 1)
        if kind == 'transposed':
            self.conv = nn.ConvTranspose2d(width, other, 2, 2)
        if kind == 'heads':
            self.h = 4
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        if kind == 'mlp':
            self.up, self.down = nn.Linear(width, 2 * other), nn.Linear(other, width)
        if kind == 'stack':
            self.weight = nn.Parameter(torch.randn(3, width, width) * width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, f'do_{self.kind}')(x)

    def do_conv(self, x):
        return self.conv(x).relu()

    def do_norm(self, x):
        return F.silu(self.norm(x))

    do_group_norm = do_norm

    def do_depthwise(self, x):
        return self.conv(x)

    do_grouped = do_transposed = do_depthwise

    def do_split(self, x):
        a, b = x.split(self.half, 1)
        return torch.cat([b, self.conv(a) * a], 1)

    def do_halves(self, x):
        a, b = x.chunk(2, 1)
        return torch.cat([a + b, a - b], 1)

    def do_dense(self, x):
        return torch.cat([x, self.conv(x).relu()], 1)

    def do_cat(self, x):
        return torch.cat([x, x.tanh()], 1)

    def do_residual(self, x):
        return x + self.conv(self.inner(x).relu())

    def do_gate(self, x):
        return x * self.conv(x.mean((2, 3), keepdim=True)).sigmoid()

    def do_mean(self, x):
        return self.conv(x) * x.mean(1, keepdim=True)

    def do_shuffle(self, x):
        b, c, h, w = x.shape
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)

    def do_shared(self, x):
        return self.conv(self.conv(x).relu()) + x

    def do_shift(self, x):
        return x.roll(1, 2) + F.pad(x, (1, 0))[..., :-1]

    def do_pool(self, x):
        return F.interpolate(F.max_pool2d(x, 2), scale_factor=2)

    def do_heads(self, x):
        b, c, height, width = x.shape
        q, k, v = (
            self.qkv(x.flatten(2).transpose(1, 2)).view(b, -1, 3, self.h, c // self.h).unbind(2)
        )
        attn = torch.einsum('bihd,bjhd->bhij', q, k).softmax(-1)
        out = torch.einsum('bhij,bjhd->bihd', attn, v).reshape(b, -1, c)
        return x + self.proj(out).transpose(1, 2).reshape(b, c, height, width)

    def do_mlp(self, x):
        a, b = self.up(x.movedim(1, -1)).chunk(2, -1)
        return self.down(F.gelu(a) * b).movedim(-1, 1)

    def do_stack(self, x):
        y = torch.einsum('bchw,kcd->kbdhw', x, self.weight)
        return y[0] + y[1].sigmoid() * y[2]


class Net(nn.Module):
    """A stem, steps, and a head."""

    def __init__(self, steps: list[tuple[str, int]]):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.steps = nn.ModuleList()
        width = 8
        for kind, other in steps:
            self.steps.append(Step(kind, width, other))
            width = self.steps[-1].out
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.stem(x)
        for step in self.steps:
            x = step(x)
        return self.head(x.mean((2, 3)))


@given(
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from((8, 12, 16))), min_size=1, max_size=5),
    seed=st.integers(0, 2**16),
    share=st.sampled_from((0.2, 0.5, 0.8)),
)  # fmt: skip
def test_slim_equals_masked(steps, seed, share):
    torch.manual_seed(seed)
    model, x = Net(steps).eval(), torch.randn(2, 3, 8, 8)
    for name, buffer in model.named_buffers():
        if name.endswith('running_var'):
            buffer.uniform_(0.5, 1.5)
    pruner = build_pruner(dict(budget=dict(type='units', ratio=0.5)))
    try:
        groups, _ = pruner.discover(model, x)
    except UserError as error:
        assert 'no units that can be pruned' in str(error)
        return
    kept = {}
    for group in groups:
        count = max(group.least, round(group.size * (1 - share)))
        kept[group.name] = torch.randperm(group.size)[:count].sort().values
    state = PruneState({group.name: group for group in groups}, kept)
    state = PruneState.from_dict(state.to_dict())
    with torch.no_grad():
        slimmed = slim(deepcopy(model), state).double()(x.double())
        masked = mask(deepcopy(model), state).double()(x.double())
    assert torch.allclose(slimmed, masked, 1e-7, 1e-7 * float(masked.abs().max())), steps

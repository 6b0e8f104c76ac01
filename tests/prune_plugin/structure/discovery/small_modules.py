"""Modules as people write them, of classes that no finder knows, each with an example input."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIM = 24
#: Builds a module; its example input.
MODULES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {}


def case(make_input: Callable[[], Tensor]) -> Callable[[type], type]:
    """Decorator: list a class with its example input."""

    def register(kind: type) -> type:
        MODULES[kind.__name__] = (kind, make_input)
        return kind

    return register


def tokens() -> Tensor:
    """``(2, 7, DIM)``."""
    return torch.randn(2, 7, DIM)


def image(channels: int = 3) -> Callable[[], Tensor]:
    """``(2, channels, 16, 16)``."""
    return lambda: torch.randn(2, channels, 16, 16)


@case(tokens)
class EinsumAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.wq, self.wk, self.wv = (nn.Parameter(torch.randn(3, DIM, 8) * 0.2) for _ in range(3))
        self.wo = nn.Parameter(torch.randn(3, 8, DIM) * 0.2)

    def forward(self, x):
        q, k, v = (torch.einsum('bnd,hde->bhne', x, w) for w in (self.wq, self.wk, self.wv))
        attn = torch.einsum('bhie,bhje->bhij', q, k).mul(8**-0.5).softmax(-1)
        return torch.einsum('bhij,bhje,hed->bid', attn, v, self.wo)


class Split(nn.Module):
    """Splits rows into heads as einops' layers do: the sizes stand in a tuple of pairs."""

    def __init__(self, **sizes: int):
        super().__init__()
        self._axes_lengths = tuple(sizes.items())

    def forward(self, x):
        sizes = dict(self._axes_lengths)
        return x.unflatten(-1, (sizes.get('h', -1), sizes.get('d', -1))).transpose(1, 2)


@case(tokens)
class GroupedAttentionOfLayers(nn.Module):
    """Three numbers must follow the heads, in three modules."""

    def __init__(self):
        super().__init__()
        self.heads, self.kv_heads = 6, 3
        self.q, self.k, self.v = (nn.Linear(DIM, n * 8) for n in (6, 3, 3))
        self.split_q, self.split_k, self.split_v = Split(h=6), Split(d=8), Split(d=8)
        self.o = nn.Linear(48, DIM)

    def forward(self, x):
        q, k, v = self.split_q(self.q(x)), self.split_k(self.k(x)), self.split_v(self.v(x))
        b, _, n, d = q.shape
        q = q.reshape(b, self.kv_heads, self.heads // self.kv_heads, n, d)
        attn = torch.einsum('bghie,bgje->bghij', q, k).mul(d**-0.5).softmax(-1)
        out = torch.einsum('bghij,bgje->bghie', attn, v).reshape(b, self.heads, n, d)
        return self.o(out.transpose(1, 2).flatten(2))


class ChannelsFirstNorm(nn.LayerNorm):
    """Takes images as well as tokens."""

    def forward(self, x):
        if x.dim() == 3:
            return super().forward(x)
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@case(image())
class ImagesAndTokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, DIM, 4, 4), ChannelsFirstNorm(DIM)
        self.pre, self.up, self.down = (
            ChannelsFirstNorm(DIM),
            nn.Linear(DIM, 512),
            nn.Linear(512, 5),
        )

    def forward(self, x):
        x = self.norm(self.stem(x)).flatten(2).transpose(1, 2)
        return self.down(self.up(self.pre(x)).relu())


@case(image())
class PaddedByHand(nn.Module):
    """As TensorFlow pads: more on one side."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16)
        self.depthwise, self.point = nn.Conv2d(16, 16, 3, 2, groups=16), nn.Conv2d(16, 32, 1)
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        x = self.norm(self.stem(F.pad(x, (0, 1, 0, 1)))).relu()
        x = self.depthwise(F.pad(x, (0, 1, 0, 1), value=0.5))
        return self.head(self.point(F.pad(x, (1, 1))).relu().mean((2, 3)))


@case(tokens)
class NoiseInside(nn.Module):
    """Another result each time."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(DIM, 64), nn.Linear(64, DIM)

    def forward(self, x):
        return self.down((self.up(x) + torch.randn(x.shape[:2]).unsqueeze(-1)).relu())


@case(tokens)
class ChunkedAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.h = 3
        self.to_qkv = nn.Linear(DIM, 3 * DIM, bias=False)
        self.to_out = nn.Sequential(nn.Linear(DIM, DIM), nn.Dropout(0.1))

    def forward(self, x):
        q, k, v = self.to_qkv(x).chunk(3, dim=-1)
        b, n, d = x.shape
        q, k, v = (t.view(b, n, self.h, d // self.h).transpose(1, 2) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(out.transpose(1, 2).reshape(b, n, d))


@case(tokens)
class InterleavedAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.cfg = dict(heads=3)
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, self.cfg['heads'], 3, -1).permute(3, 0, 2, 1, 4)
        attn = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        return self.out((attn.softmax(-1) @ v).transpose(1, 2).flatten(2))


class RMS(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.g = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.g


@case(tokens)
class GroupedGatedAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.n_q, self.n_kv, self.d = 6, 3, 8
        self.q, self.gate = nn.Linear(DIM, 48), nn.Linear(DIM, 48)
        self.k, self.v = nn.Linear(DIM, 24), nn.Linear(DIM, 24)
        self.q_norm, self.k_norm = RMS(8), RMS(8)
        self.out = nn.Linear(48, DIM)

    def forward(self, x):
        b, n, _ = x.shape
        q = self.q_norm(self.q(x).view(b, n, self.n_q, self.d)).transpose(1, 2)
        k = self.k_norm(self.k(x).view(b, n, self.n_kv, self.d)).transpose(1, 2)
        v = self.v(x).view(b, n, self.n_kv, self.d).transpose(1, 2)
        k, v = (t.repeat_interleave(self.n_q // self.n_kv, 1) for t in (k, v))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1)
        return self.out(out * self.gate(x).sigmoid())


@case(tokens)
class PackedMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = 40
        self.w12, self.w3 = nn.Linear(DIM, 80), nn.Linear(40, DIM)

    def forward(self, x):
        a, b = self.w12(x).split(self.hidden, -1)
        return self.w3(F.silu(a) * b)


@case(tokens)
class ThreeLayerMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(DIM, 32), nn.GELU(), nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, DIM)
        )

    def forward(self, x):
        return x + self.net(x)


@case(tokens)
class StackedExperts(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = nn.Linear(DIM, 4, bias=False)
        self.up = nn.Parameter(torch.randn(4, DIM, 20) * 0.2)
        self.down = nn.Parameter(torch.randn(4, 20, DIM) * 0.2)

    def forward(self, x):
        weights = self.router(x).softmax(-1)
        hidden = F.gelu(torch.einsum('bnd,edh->benh', x, self.up))
        return torch.einsum('benh,ehd,bne->bnd', hidden, self.down, weights)


@case(image(16))
class InvertedResidual(nn.Module):
    def __init__(self):
        super().__init__()
        self.expand = nn.Sequential(
            nn.Conv2d(16, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU6()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(48, 48, 3, padding=1, groups=48, bias=False), nn.BatchNorm2d(48), nn.SiLU()
        )
        self.squeeze, self.excite = nn.Conv2d(48, 12, 1), nn.Conv2d(12, 48, 1)
        self.project = nn.Conv2d(48, 16, 1)

    def forward(self, x):
        y = self.depthwise(self.expand(x))
        y = y * self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x + self.project(y)


@case(image())
class GroupedConvolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 32, 3, padding=1)
        self.b = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.n = nn.GroupNorm(8, 32)
        self.c = nn.Conv2d(32, 8, 1)

    def forward(self, x):
        return self.c(F.relu(self.n(self.b(F.relu(self.a(x))))))


@case(image())
class DenselyConnected(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(8 + 6 * i, 6, 3, padding=1) for i in range(3))
        self.head = nn.Linear(26, 5)

    def forward(self, x):
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1).relu()))
        return self.head(torch.cat(features, 1).mean((2, 3)))


@case(image(16))
class SplitConvolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.cv1 = nn.Conv2d(16, 24, 1)
        self.m = nn.ModuleList(nn.Conv2d(12, 12, 3, padding=1) for _ in range(2))
        self.cv2 = nn.Conv2d(48, 16, 1)

    def forward(self, x):
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]).relu() for m in self.m)
        return self.cv2(torch.cat(y, 1))


@case(image(16))
class ShuffledConvolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(16, 32, 1, groups=2)
        self.b = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.c = nn.Conv2d(32, 16, 1, groups=2)

    def forward(self, x):
        y = F.relu(self.a(x))
        b, c, h, w = y.shape
        y = y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return x + self.c(self.b(y))


@case(image())
class UShaped(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.middle = nn.Conv2d(16, 32, 3, padding=1)
        self.up2, self.up1 = nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)
        self.join2, self.join1 = nn.Conv2d(32, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = self.down1(x).relu()
        b = self.down2(F.max_pool2d(a, 2)).relu()
        y = self.middle(F.max_pool2d(b, 2)).relu()
        y = self.join2(torch.cat([b, self.up2(y)], 1)).relu()
        return self.head(self.join1(torch.cat([a, self.up1(y)], 1)).relu())


@case(tokens)
class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(DIM, 32, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


@case(tokens)
class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(DIM, 32, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(64, 5)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


@case(tokens)
class NormedAndShared(nn.Module):
    def __init__(self):
        super().__init__()
        up = nn.utils.parametrizations.weight_norm(nn.Linear(DIM, 40))
        self.block = nn.Sequential(nn.LayerNorm(DIM), up, nn.GELU(), nn.Linear(40, DIM))
        self.head = nn.Linear(DIM, 5)

    def forward(self, x):
        for _ in range(3):
            x = x + self.block(x)
        return self.head(x)


@case(tokens)
class OldWeightNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.utils.weight_norm(nn.Linear(DIM, 40))
        self.down = nn.Linear(40, DIM)

    def forward(self, x):
        return x + self.down(self.up(x).relu())

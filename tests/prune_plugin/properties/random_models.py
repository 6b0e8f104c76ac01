"""Random small models, each with its number of parameters worked out from its description alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from hypothesis import strategies as st
from mixed_model import BasicBlock
from random_convnets import ConvNet, convnet_count, layers
from torch import Tensor, nn

Kept = Mapping[str, int]
SIZE, TOKENS, VOCABULARY = 6, 5, 17


@dataclass(frozen=True)
class Drawn:
    """A model that was drawn.

    Attributes:
        family: Which kind of model.
        description: What it is made of.
        make: Makes the model of a description.
        count: Its parameters, from the description and the units kept by group.
        inputs: Makes the argument of a forward call.
        units: ``prune_cfg.units``.
        tolerance: Most that masked and slim outputs may differ, relative to the largest output.
        input_shape: Shape of one sample, for FLOPs.
    """

    family: str
    description: tuple
    make: Callable[..., nn.Module] = field(repr=False)
    count: Callable[..., int] = field(repr=False)
    inputs: Callable[[], Tensor] = field(repr=False)
    units: tuple[str, ...] = ()
    tolerance: float = 1e-9
    input_shape: tuple[int, ...] | None = None

    def build(self, seed: int) -> nn.Module:
        """The model with random weights, biases and running statistics."""
        torch.manual_seed(seed)
        model = self.make(*self.description)
        with torch.no_grad():
            for name, tensor in (*model.named_parameters(), *model.named_buffers()):
                if tensor.dim() == 1 and tensor.is_floating_point() and 'inv_freq' not in name:
                    positive = name.endswith(('weight', 'running_var'))
                    tensor.copy_(
                        torch.rand_like(tensor) + 0.5 if positive else torch.randn_like(tensor) / 4
                    )
        return model.double().eval() if self.tolerance < 1e-6 else model.eval()

    def run(self, model: nn.Module) -> Tensor:
        """The model's output as one tensor."""
        with torch.no_grad():
            output = model(self.inputs())
        return getattr(output, 'logits', output)


def images() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)


def sequence(dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, TOKENS, dim, generator=generator, dtype=torch.float64)


def tokens() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, VOCABULARY, (2, TOKENS), generator=generator)


WIDTHS = st.integers(1, 9)


def convnets() -> st.SearchStrategy[Drawn]:
    """Plain, residual, concatenated, grouped, depthwise and shared convolutions."""
    draw = st.tuples(WIDTHS, layers(), st.booleans())
    return draw.map(
        lambda d: Drawn('convnet', (*d, SIZE), ConvNet, convnet_count, images, ('CoupledChannels',),
                        input_shape=(3, SIZE, SIZE))
    )  # fmt: skip


class Bottleneck(nn.Module):
    """Found through its class name; with groups, what its second convolution reads stays."""

    def __init__(self, width: int, inner: int, groups: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner * groups, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner * groups)
        self.conv2 = nn.Conv2d(inner * groups, inner * groups, 3, padding=1, groups=groups)
        self.bn2 = nn.BatchNorm2d(inner * groups)
        self.conv3 = nn.Conv2d(inner * groups, width, 1)

    def forward(self, x):
        return x + self.conv3(self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu())


class ResNet(nn.Module):
    """Residual blocks, and branches on what they give; the first block may run twice."""

    def __init__(self, width: int, blocks: tuple, branches: tuple, twice: bool):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        made = [
            Bottleneck(width, inner, groups) if groups else BasicBlock(width, inner)
            for inner, groups in blocks
        ]
        self.blocks = nn.ModuleList(made + made[:1] * twice)
        self.branches = nn.ModuleList(branch(width, *b) for b in branches)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = x.mean((2, 3))
        return torch.cat([part(x) for part in self.branches], 1)


def resnet_count(kept: Kept, width: int, blocks: tuple, branches: tuple, twice: bool) -> int:
    total = 3 * 9 * width + width
    for number, (inner, groups) in enumerate(blocks):
        a = kept.get(f'blocks.{number}.conv1', inner * max(groups, 1))
        if not groups:
            total += width * a * 9 + a + 2 * a + a * width * 9 + width
            continue
        b = kept.get(f'blocks.{number}.conv2', inner * groups)
        total += width * a + 2 * a + a // groups * b * 9 + b + 2 * b + b * width + width
    return total + sum(
        branch_count(kept, f'branches.{i}', width, *b) for i, b in enumerate(branches)
    )


NORMS: dict[str, Callable[[int], list[nn.Module]]] = {
    'none': lambda width: [],
    'layer': lambda width: [nn.LayerNorm(width)],
    'batch': lambda width: [nn.BatchNorm1d(width)],
}


def branch(width: int, hidden: tuple[int, ...], norm: str, bias: bool) -> nn.Sequential:
    """Linear layers with norms and activations between them."""
    parts: list[nn.Module] = []
    for size in hidden:
        parts += [nn.Linear(width, size, bias=bias), *NORMS[norm](size), nn.GELU(), nn.Dropout(0.1)]
        width = size
    return nn.Sequential(*parts, nn.Linear(width, 3))


def branch_count(
    kept: Kept, name: str, width: int, hidden: tuple[int, ...], norm: str, bias: bool
) -> int:
    total, step = 0, 3 if norm == 'none' else 4
    for number, size in enumerate(hidden):
        size = kept.get(f'{name}.{number * step}', size)
        total += width * size + bias * size + (norm != 'none') * 2 * size
        width = size
    return total + width * 3 + 3


def branches() -> st.SearchStrategy[tuple]:
    hidden = st.lists(WIDTHS, max_size=3).map(tuple)
    return st.tuples(hidden, st.sampled_from(sorted(NORMS)), st.booleans())


def some(strategy: st.SearchStrategy, least: int = 1, most: int = 3) -> st.SearchStrategy[tuple]:
    return st.lists(strategy, min_size=least, max_size=most).map(tuple)


def resnets() -> st.SearchStrategy[Drawn]:
    """Basic and bottleneck blocks, with groups and without, and branches; a block may be shared."""
    blocks = some(st.tuples(WIDTHS, st.integers(0, 2)))
    draw = st.tuples(WIDTHS, blocks, some(branches()), st.booleans())
    units = ('BottleneckChannels', 'BranchNeurons')
    return draw.map(
        lambda d: Drawn('resnet', d, ResNet, resnet_count, images, units,
                        input_shape=(3, SIZE, SIZE))
    )  # fmt: skip


class Transformer(nn.Module):
    """Encoder layers, decoder layers that read what those give, a branch; the first may be shared."""

    def __init__(self, heads, head, encoders, decoders, pre, twice, ending):
        super().__init__()
        dim = heads * head
        kinds = nn.TransformerEncoderLayer, nn.TransformerDecoderLayer
        common = dict(batch_first=True, norm_first=pre, dropout=0.1)
        made = [kinds[0](dim, heads, hidden, **common) for hidden in encoders]
        self.encoders = nn.ModuleList(made + made[:1] * twice)
        self.decoders = nn.ModuleList(kinds[1](dim, heads, h, **common) for h in decoders)
        self.ending = branch(dim, *ending) if ending[1] != 'batch' else nn.Linear(dim, 3)

    def forward(self, x):
        memory = x
        for layer in self.encoders:
            memory = layer(memory)
        x = memory.flip(1)
        for layer in self.decoders:
            x = layer(x, memory)
        return self.ending(x)


def transformer_count(kept: Kept, heads, head, encoders, decoders, pre, twice, ending) -> int:
    dim = heads * head

    def attention(name: str) -> int:
        inner = kept.get(name, heads) * head
        return 3 * (dim * inner + inner) + inner * dim + dim

    def mlp(name: str, hidden: int) -> int:
        hidden = kept.get(f'{name}.linear1', hidden)
        return 2 * dim * hidden + hidden + dim

    total = branch_count(kept, 'ending', dim, *ending) if ending[1] != 'batch' else dim * 3 + 3
    for number, hidden in enumerate(encoders):
        name = f'encoders.{number}'
        total += attention(f'{name}.self_attn') + mlp(name, hidden) + 4 * dim
    for number, hidden in enumerate(decoders):
        name = f'decoders.{number}'
        total += attention(f'{name}.self_attn') + attention(f'{name}.multihead_attn')
        total += mlp(name, hidden) + 6 * dim
    return total


def transformers() -> st.SearchStrategy[Drawn]:
    """PyTorch's encoders and decoders of many heads or one, pre-norm and post-norm."""
    draw = st.tuples(
        st.integers(1, 5), st.integers(1, 4), some(WIDTHS), some(WIDTHS, least=0, most=2),
        st.booleans(), st.booleans(), branches(),
    )  # fmt: skip
    return draw.map(
        lambda d: Drawn(
            'transformer', d, Transformer, transformer_count, partial(sequence, d[0] * d[1]),
            ('AttentionHeads', 'FFNNeurons'), input_shape=(TOKENS, d[0] * d[1]),
        )
    )  # fmt: skip


def llama(kv_heads, per_group, head, share, hidden, depth, tied, bias) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    dim = kv_heads * per_group * share
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=dim, intermediate_size=hidden, head_dim=2 * head,
            num_hidden_layers=depth, num_attention_heads=kv_heads * per_group,
            num_key_value_heads=kv_heads, tie_word_embeddings=tied, attention_bias=bias,
            mlp_bias=bias, max_position_embeddings=16,
        )
    )  # fmt: skip


def llama_count(kept: Kept, kv_heads, per_group, head, share, hidden, depth, tied, bias) -> int:
    dim = kv_heads * per_group * share
    total = VOCABULARY * dim * (1 if tied else 2) + dim
    for number in range(depth):
        name = f'model.layers.{number}'
        groups = kept.get(f'{name}.self_attn', kv_heads)
        neurons = kept.get(f'{name}.mlp', hidden)
        rows = groups * 2 * head
        total += dim * rows * (2 * per_group + 2) + bias * (rows * (per_group + 2) + dim)
        total += 3 * dim * neurons + bias * (2 * neurons + dim) + 2 * dim
    return total


def llamas() -> st.SearchStrategy[Drawn]:
    """Grouped queries from one query head per KV head to all on one; tied and untied embeddings."""
    draw = st.tuples(
        st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), WIDTHS,
        st.integers(1, 3), st.booleans(), st.booleans(),
    )  # fmt: skip
    # Its norms and rotations compute in single precision, whatever the weights are.
    return draw.map(
        lambda d: Drawn(
            'llama', d, llama, llama_count, tokens, ('AttentionHeads', 'FFNNeurons'), 1e-5
        )
    )


FAMILIES = dict(convnet=convnets, resnet=resnets, transformer=transformers, llama=llamas)

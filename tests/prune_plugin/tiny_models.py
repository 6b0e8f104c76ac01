"""Small models of every family, and their parameter counts worked out by hand.

A count is a function ``kept -> parameters``, where ``kept`` maps names of unit groups to the number of
units left. It knows the architecture, not the plugin.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import nn

Kept = Mapping[str, int]
NUM_CLASSES = 10
VOCABULARY = 96


def randomised(model: nn.Module, seed: int = 1) -> nn.Module:
    """Non-trivial biases, norm weights and running statistics: zeros would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            is_buffer = not isinstance(tensor, nn.Parameter)
            if tensor.dim() != 1 or (is_buffer and 'running' not in name):
                continue
            noise = torch.rand(tensor.shape, generator=generator)
            scale = name.endswith(('weight', 'running_var'))
            tensor.copy_(0.5 + noise if scale else 0.4 * (noise - 0.2))
    model.eval()  # mmdet's returns None
    return model


# Convolutional nets


def torchvision_resnet(depth: int) -> nn.Module:
    import torchvision

    return getattr(torchvision.models, f'resnet{depth}')(num_classes=NUM_CLASSES)


def mmdet_resnet(depth: int, base: int = 8) -> nn.Module:
    from mmdet.models.backbones import ResNet

    return ResNet(depth, base_channels=base, norm_eval=False)


def resnet_count(kept: Kept, depth: int, base: int = 64, classes: int = NUM_CLASSES) -> int:
    """Torchvision's and mmdet's ResNets: each width is the group's, or the dense one."""
    blocks = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]
    wide = 4 if depth == 50 else 1
    last_conv = 'conv3' if wide == 4 else 'conv2'
    stem = kept.get('conv1', base)
    total = 3 * stem * 49 + 2 * stem
    width = stem
    for stage, number in enumerate(blocks, start=1):
        inner = base * 2 ** (stage - 1)
        shared = 'conv1' if stage == 1 and wide == 1 else f'layer{stage}.0.{last_conv}'
        out = kept.get(shared, inner * wide)
        for index in range(number):
            block = f'layer{stage}.{index}'
            a = kept.get(f'{block}.conv1', inner)
            if wide == 1:
                total += width * a * 9 + 2 * a + a * out * 9 + 2 * out
            else:
                b = kept.get(f'{block}.conv2', inner)
                total += width * a + 2 * a + a * b * 9 + 2 * b + b * out + 2 * out
            if index == 0 and (stage > 1 or wide == 4):
                total += width * out + 2 * out
            width = out
    return total + (width * classes + classes if classes else 0)


class Pyramid(nn.Module):
    """mmdet's FPN over three levels, five levels out; the extra ones come from ``extra``."""

    def __init__(self, extra: str | bool = False, norm: bool = False):
        super().__init__()
        from mmdet.models.necks import FPN

        self.neck = FPN(
            [6, 10, 14], 12, num_outs=5, add_extra_convs=extra, relu_before_extra_convs=True,
            norm_cfg=dict(type='BN') if norm else None,
            act_cfg=dict(type='ReLU') if norm else None,
        )  # fmt: skip

    def forward(self, *levels):
        return self.neck(levels)


def pyramid_count(kept: Kept, extra: str | bool = False, norm: bool = False) -> int:
    """Three laterals (1 x 1), three outputs (3 x 3), and two extra convolutions with stride 2."""
    inner, out, rest = kept.get('neck.lateral_convs', 12), 12, 2 if norm else 1
    total = (6 + 10 + 14) * inner + 3 * rest * inner  # one bias, or scale and shift
    total += 3 * (inner * out * 9 + rest * out)
    if not extra:
        return total
    first = {'on_lateral': inner, 'on_output': out, 'on_input': 14}[extra]
    return total + (first + out) * out * 9 + 2 * rest * out


# Vision transformers


def timm_vit(depth: int = 2, mlp: str = 'Mlp', **kwargs) -> nn.Module:
    import timm
    from timm import layers

    return timm.create_model(
        'vit_tiny_patch16_224', img_size=32, patch_size=8, embed_dim=48, depth=depth, num_heads=4,
        num_classes=NUM_CLASSES, mlp_layer=getattr(layers, mlp), **kwargs,
    )  # fmt: skip


def vit_count(kept: Kept, depth: int = 2, mlp: str = 'Mlp') -> int:
    dim, head = 48, 12
    hidden, producers = {'Mlp': (192, 1), 'GluMlp': (96, 2), 'SwiGLU': (192, 2)}[mlp]
    total = 3 * 8 * 8 * dim + dim + dim + 17 * dim + 2 * dim + dim * NUM_CLASSES + NUM_CLASSES
    for i in range(depth):
        if kept.get(f'blocks.{i}', 1) == 0:
            continue
        a = kept.get(f'blocks.{i}.attn', 4) * head
        m = kept.get(f'blocks.{i}.mlp', hidden)
        total += 3 * (a * dim + a) + a * dim + dim
        total += producers * (m * dim + m) + m * dim + dim + 4 * dim
    return total


# Transformer layers of PyTorch and mmcv


class MaskedCrossAttention(nn.Module):
    """Cross attention over keys of another width, with both kinds of mask."""

    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(32, 4, kdim=24, vdim=40, batch_first=True)

    def forward(self, query, key, value):
        mask = torch.zeros(query.shape[0] * 4, query.shape[1], key.shape[1], device=query.device)
        # Another mask for every head: cutting heads has to pick the right ones.
        mask += torch.arange(len(mask), device=query.device).view(-1, 1, 1) * 0.1
        mask = mask * torch.arange(key.shape[1], device=query.device)
        padding = torch.zeros(query.shape[0], key.shape[1], dtype=torch.bool, device=query.device)
        padding[:, -1] = True
        return self.attn(query, key, value, padding, attn_mask=mask, need_weights=False)[0]


class TwoInputs(nn.Module):
    """An encoder-decoder layer with its own memory, called with one input."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x, x.flip(1) * 0.5)


class MmcvDecoder(nn.Module):
    """An mmcv decoder layer: self-attention, cross-attention, FFN, each with a post-norm."""

    def __init__(self):
        super().__init__()
        from mmcv.cnn.bricks.transformer import BaseTransformerLayer

        attention = dict(type='MultiheadAttention', embed_dims=32, num_heads=4, batch_first=True)
        self.layer = BaseTransformerLayer(
            attn_cfgs=[dict(attention), dict(attention)],
            ffn_cfgs=dict(
                type='FFN', embed_dims=32, feedforward_channels=64, num_fcs=3,
                act_cfg=dict(type='ReLU', inplace=True),
            ),
            operation_order=('self_attn', 'norm', 'cross_attn', 'norm', 'ffn', 'norm'),
            batch_first=True,
        )  # fmt: skip

    def forward(self, x):
        memory = x.flip(1) * 0.5
        return self.layer(x, key=memory, value=memory, query_pos=x * 0.1, key_pos=memory * 0.1)


class MmcvDeformable(nn.Module):
    """mmcv's deformable attention over two levels, with values as wide as queries and half as wide."""

    def __init__(self):
        super().__init__()
        from mmcv.ops import MultiScaleDeformableAttention

        common = dict(embed_dims=32, num_heads=4, num_levels=2, num_points=3, batch_first=True)
        self.wide = MultiScaleDeformableAttention(**common)
        self.narrow = MultiScaleDeformableAttention(value_proj_ratio=0.5, **common)
        with torch.no_grad():  # they start at zero
            for layer in (self.wide, self.narrow):
                for part in (layer.sampling_offsets, layer.attention_weights):
                    part.weight.normal_(std=0.2)

    def forward(self, query, value):
        shapes, starts = torch.tensor([[4, 5], [2, 3]]), torch.tensor([0, 20])
        places = torch.linspace(0.1, 0.9, query.shape[1])[None, :, None, None]
        places = places.expand(len(query), -1, 2, 2).to(query)
        for layer in (self.wide, self.narrow):
            query = layer(
                query, value=value, reference_points=places, spatial_shapes=shapes.to(query.device),
                level_start_index=starts.to(query.device),
            )  # fmt: skip
        return query


def mmcv_deformable_count(kept: Kept) -> int:
    """A head: 2 levels x 3 points of 2 offsets and a weight, its rows of values, its columns."""
    total = 0
    for name, width in (('wide', 8), ('narrow', 4)):
        heads = kept.get(name, 4)
        total += heads * (2 * 3 * 3 * (32 + 1) + width * (32 + 1) + width * 32) + 32
    return total


class Branches(nn.Module):
    """Two small networks on the same features, as a detection head has them."""

    def __init__(self, norm: type[nn.Module] | None):
        super().__init__()
        between = (lambda width: [norm(width)]) if norm else (lambda width: [])
        self.classes = nn.Sequential(
            nn.Linear(16, 24), *between(24), nn.ReLU(inplace=True), nn.Dropout(0.1),
            nn.Linear(24, 20), *between(20), nn.GELU(), nn.Linear(20, 5),
        )  # fmt: skip
        self.boxes = nn.Sequential(
            nn.Linear(16, 18, bias=False), *between(18), nn.SiLU(), nn.Linear(18, 4), nn.ReLU()
        )

    def forward(self, x):
        return self.classes(x), self.boxes(x)


def branches_count(kept: Kept, norm: type[nn.Module] | None) -> int:
    first = 3 if norm is None else 4  # of normed branches the group is named after another number
    a, b = kept.get('classes.0', 24), kept.get(f'classes.{first}', 20)
    c = kept.get('boxes.0', 18)
    total = 16 * a + a + a * b + b + b * 5 + 5 + 16 * c + c * 4 + 4
    return total + (0 if norm is None else 2 * (a + b + c))


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def decoder() -> nn.Module:
    return TwoInputs(nn.TransformerDecoderLayer(32, 4, 64, batch_first=True, norm_first=True))


def attention_count(heads: int, dim: int = 32, head: int = 8) -> int:
    inner = heads * head
    return 3 * (inner * dim + inner) + inner * dim + dim


def mlp_count(hidden: int, dim: int = 32) -> int:
    return 2 * hidden * dim + hidden + dim


def encoder_count(kept: Kept) -> int:
    return sum(
        attention_count(kept.get(f'layers.{i}.self_attn', 4))
        + mlp_count(kept.get(f'layers.{i}.linear1', 64))
        + 2 * 64
        for i in range(2)
    )


def decoder_count(kept: Kept) -> int:
    attentions = ('layer.self_attn', 'layer.multihead_attn')
    heads = sum(attention_count(kept.get(name, 4)) for name in attentions)
    return heads + mlp_count(kept.get('layer.linear1', 64)) + 3 * 64


def mmcv_decoder_count(kept: Kept) -> int:
    heads = sum(attention_count(kept.get(f'layer.attentions.{i}.attn', 4)) for i in range(2))
    a, b = kept.get('layer.ffns.0', 64), kept.get('layer.ffns.0.layers.1.0', 64)
    return heads + (32 * a + a) + (a * b + b) + (b * 32 + 32) + 3 * 64


def cross_attention_count(kept: Kept) -> int:
    inner = kept.get('attn', 4) * 8
    return inner * (32 + 24 + 40) + 3 * inner + inner * 32 + 32


# Language models


def llama(kv_heads: int = 2) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=8, num_key_value_heads=kv_heads, max_position_embeddings=64,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def llama_count(kept: Kept, kv_heads: int = 2) -> int:
    total = 2 * VOCABULARY * 64 + 64
    for i in range(3):
        layer = f'model.layers.{i}'
        if kept.get(layer, 1) == 0:
            continue
        groups = kept.get(f'{layer}.self_attn', kv_heads)
        per_group = 8 // kv_heads
        total += groups * 8 * 64 * (per_group + 1 + 1 + per_group)
        total += 3 * 64 * kept.get(f'{layer}.mlp', 96) + 2 * 64
    return total


def opt() -> nn.Module:
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=VOCABULARY, hidden_size=32, ffn_dim=64, num_hidden_layers=2, dropout=0.0,
        num_attention_heads=4, max_position_embeddings=64, word_embed_proj_dim=32,
    )  # fmt: skip
    return OPTForCausalLM(config)


def opt_count(kept: Kept) -> int:
    total = VOCABULARY * 32 + (64 + 2) * 32 + 64  # the output layer is tied to the embedding
    for i in range(2):
        layer = f'model.decoder.layers.{i}'
        if kept.get(layer, 1) == 0:
            continue
        total += attention_count(kept.get(f'{layer}.self_attn', 4))
        total += mlp_count(kept.get(f'{layer}.fc1', 64)) + 2 * 64
    return total


# Inputs


def drawn(*shapes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


images = partial(drawn, (2, 3, 32, 32))
levels = partial(drawn, (2, 6, 16, 12), (2, 10, 8, 6), (2, 14, 4, 3))
sequence = partial(drawn, (2, 5, 32))
features = partial(drawn, (6, 16))


def tokens() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    return (torch.randint(0, VOCABULARY, (2, 7), generator=generator),)

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
sequence = partial(drawn, (2, 5, 32))


def tokens() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    return (torch.randint(0, VOCABULARY, (2, 7), generator=generator),)

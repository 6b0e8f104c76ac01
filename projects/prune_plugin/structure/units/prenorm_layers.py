"""Whole pre-norm layers: they only add to the residual stream, so they can be skipped."""

from torch import nn

from ...common.registry import UNITS
from ..unit_group import Cut, UnitGroup
from .finder import UnitFinder, require


@UNITS.register_module()
class PreNormLayers(UnitFinder):
    """Whole pre-norm transformer layers, each a group of one unit. Post-norm layers can't be removed.

    Not among the default units. ``min_keep`` is here the number of layers kept in the whole model.

    Example:
        >>> prune_cfg = dict(units=[dict(type='PreNormLayers')], budget=dict(type='units', ratio=0.25))
    """

    default = False


def whole_layer(name: str, layer: nn.Module) -> list[UnitGroup]:
    """A group of one unit that owns all parameters of ``layer``."""
    cuts = tuple(Cut(f'{name}.{parameter}', None) for parameter, _ in layer.named_parameters())
    return [UnitGroup(name, 'layer', 1, cuts, name, converts=((name, 'SkipLayer'),))]


@PreNormLayers.layout('Block')
def timm_block(name: str, layer: nn.Module) -> list[UnitGroup]:
    """timm's ViT ``Block``."""
    require(all(hasattr(layer, n) for n in ('norm1', 'attn', 'norm2', 'mlp')), 'not a ViT block')
    return whole_layer(name, layer)


@PreNormLayers.layout(
    'LlamaDecoderLayer',
    'MistralDecoderLayer',
    'Qwen2DecoderLayer',
    'Qwen3DecoderLayer',
    'GemmaDecoderLayer',
    'Gemma2DecoderLayer',
    'Gemma3DecoderLayer',
    'Phi3DecoderLayer',
    'GPTNeoXLayer',
)
def llama_layer(name: str, layer: nn.Module) -> list[UnitGroup]:
    """Llama, GPT-NeoX and similar layers.

    Gemma 2 and 3 also normalise the outputs of attention and MLP, but not the residual stream. In
    GPT-NeoX attention and MLP run in parallel on the same input.
    """
    return whole_layer(name, layer)


@PreNormLayers.layout('OPTDecoderLayer')
def opt_layer(name: str, layer: nn.Module) -> list[UnitGroup]:
    """OPT, except OPT-350M, which is post-norm."""
    require(layer.do_layer_norm_before, 'a post-norm layer')
    return whole_layer(name, layer)

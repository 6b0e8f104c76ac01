"""Whole layers: a pre-norm block adds to the residual stream, so the stream flows on without it."""

from torch import nn

from ...common.registry import UNITS
from ..unit_group import Cut, UnitGroup
from .finder import UnitFinder, require


@UNITS.register_module()
class PreNormLayers(UnitFinder):
    """Whole pre-norm transformer layers, each a group of one unit. Post-norm ones can't go.

    Not among the default units. ``min_keep`` counts layers over the whole model here.

    Example:
        >>> prune_cfg = dict(units=[dict(type='PreNormLayers')], budget=dict(type='units', ratio=0.25))
    """

    default = False


def whole_layer(name: str, layer: nn.Module) -> list[UnitGroup]:
    """One group of one unit that owns every parameter of ``layer``."""
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
    """Llama, GPT-NeoX and their kin.

    Gemma 2 and 3 norm what attention and MLP give once more, but not the residual stream. In
    GPT-NeoX both read the stream side by side.
    """
    return whole_layer(name, layer)


@PreNormLayers.layout('OPTDecoderLayer')
def opt_layer(name: str, layer: nn.Module) -> list[UnitGroup]:
    """OPT, except the 350M one, which norms after attention."""
    require(layer.do_layer_norm_before, 'a post-norm layer')
    return whole_layer(name, layer)

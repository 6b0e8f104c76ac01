"""Whole pre-norm layers, or their attentions and MLPs: they only add to the residual stream."""

from collections.abc import Callable

from torch import nn

from ...common.registry import UNITS
from ..discovery.call import Call
from ..discovery.trials import Discovery
from ..discovery.whole_modules import whole_layers, whole_sublayers
from ..unit_group import Cut, UnitGroup
from .finder import UnitFinder, require


@UNITS.register_module()
class PreNormLayers(UnitFinder):
    """Whole pre-norm transformer layers, each a group of one unit. Post-norm layers can't be removed.

    Layers of known classes are taken by name; where there are none, layers are found by trying, on the
    example input, which modules of a list can be left out.

    Not among the default units. ``min_keep`` is here the number of layers kept in the whole model.

    Example:
        >>> prune_cfg = dict(units=[dict(type='PreNormLayers')], budget=dict(type='units', ratio=0.25))
    """

    default = False

    def find(self, model: nn.Module) -> tuple[list[UnitGroup], dict[str, str]]:
        """See :meth:`UnitFinder.find`."""
        groups, refused = super().find(model)
        if groups:
            self.proofs = {}
            return groups, refused
        found, more = tried(model, self.example, whole_layers)
        self.proofs = found.proofs
        return found.groups, {**refused, **more}


@UNITS.register_module()
class PreNormSublayers(UnitFinder):
    """Whole attentions and whole MLPs of pre-norm layers, each a group of one unit.

    They are found by trying, on the example input, which modules of a layer can be left out, whatever
    their classes; the layers themselves are those of :class:`PreNormLayers`.

    Not among the default units. ``min_keep`` is here the number kept in the whole model.

    Example:
        >>> prune_cfg = dict(units=[dict(type='PreNormSublayers')], budget=dict(type='params', ratio=0.2))
    """

    default = False
    runs_model = True

    def find(self, model: nn.Module) -> tuple[list[UnitGroup], dict[str, str]]:
        """See :meth:`UnitFinder.find`."""
        finder = PreNormLayers()
        finder.example = self.example
        layers, refused = finder.find(model)
        if not layers:
            return [], refused

        def sublayers(model: nn.Module, call: Call) -> Discovery:
            return whole_sublayers(model, call, [layer.owner for layer in layers])

        found, more = tried(model, self.example, sublayers)
        self.proofs = found.proofs
        return found.groups, {**refused, **more}


def tried(
    model: nn.Module,
    example: Callable[[], Call | None] | None,
    find: Callable[[nn.Module, Call], Discovery],
) -> tuple[Discovery, dict[str, str]]:
    """What can be left out of a model, by trying; and why nothing was tried, or what was in vain.

    Args:
        model: The model.
        example: Gives an example call.
        find: Tries.
    """
    call = example() if example is not None else None
    if call is None:
        why = (
            'what can be left out is tried on an example input, and there is none: set '
            'prune_cfg.profile.input_shape, or give plan(model, example_inputs=...)'
        )
        return Discovery(), {type(model).__name__: why}
    found = find(model, call)
    return found, found.refused


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

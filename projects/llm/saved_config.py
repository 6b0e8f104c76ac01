"""Which config describes a pruned language model: one that transformers knows, or one with widths."""

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import LlamaConfig, MistralConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

from projects.prune_plugin.common.errors import UserError

#: Keys that ``modeling_slim.py`` reads.
SLIM_KEYS = ('slim_widths', 'slim_attributes', 'slim_base')
#: Where a layer's MLP width is read, and what configs call it.
MLP_OUTPUTS = ('mlp.down_proj', 'fc2', 'mlp.dense_4h_to_h')
MLP_KEYS = ('intermediate_size', 'ffn_dim')


@dataclass
class Described:
    """How a model is written down.

    Attributes:
        config: The config of a folder; that of the dense layers where widths differ.
        architecture: The transformers class that builds it.
        layers: Positions of the layers that are left.
        widths: As ``modeling_slim.cut_layers`` takes them; empty for what transformers can build.
        attributes: The same.
    """

    config: PreTrainedConfig
    architecture: type[PreTrainedModel]
    layers: list[int]
    widths: dict[str, list[int]]
    attributes: dict[str, list[float]]

    @property
    def plain(self) -> bool:
        """Whether transformers builds the model from the config alone."""
        return not (self.widths or self.attributes)


def describe(lm: PreTrainedModel) -> Described:
    """Find the config that builds ``lm``'s shapes.

    Layers that are gone are left out. If what is left has the same widths everywhere, the config
    says so; whether that is enough is found out by building it.

    Args:
        lm: The model, possibly pruned; meta tensors will do.

    Raises:
        UserError: it differs from its architecture in more than what its layers' widths can say.
    """
    layers = decoder_layers(lm)
    left = [i for i, layer in enumerate(layers) if type(layer).__name__ != 'SkipLayer']
    if not left:
        raise UserError('--save-hf: the model has lost all its layers; prune less')
    config = shorter(dense_config(lm.config), left, len(layers))
    even = uniform(config, layers[left[0]])
    for candidate in (config, even, as_mistral(even)):
        reference = built(candidate)
        if reference is not None and not any(compare(lm, reference, left)):
            return Described(candidate, type(reference), left, {}, {})
    reference = built(config)
    if reference is None or family(reference) != family(lm):
        raise UserError(
            f'--save-hf: transformers does not build a {type(lm).__name__} of this config'
        )
    faults, widths, attributes = compare(lm, reference, left)
    if faults:
        raise UserError(
            f'--save-hf: {faults[0]}; only dense models and those that lost weights, heads, MLP '
            'channels or whole layers can be saved'
        )
    return Described(config, type(reference), left, widths, attributes)


def decoder_layers(lm: PreTrainedModel) -> nn.ModuleList:
    """The list of decoder layers."""
    layers = getattr(lm.get_decoder(), 'layers', None)
    if not isinstance(layers, nn.ModuleList):
        raise UserError(
            f'--save-hf: {type(lm).__name__} has no list of decoder layers where Llama, Qwen, '
            'Mistral, OPT and GPT-NeoX have theirs'
        )
    return layers


def family(lm: PreTrainedModel) -> str:
    """What the names of a model's classes begin with: ``'Llama'``."""
    return type(lm).__name__.removesuffix('ForCausalLM').removeprefix('Slim')


def dense_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """A copy of ``config``, of transformers' own class where ``modeling_slim.py`` has made it."""
    base = getattr(config, 'slim_base', None)
    if base not in CONFIG_MAPPING or type(config) is CONFIG_MAPPING[base]:
        return deepcopy(config)
    data = {k: v for k, v in config.to_dict().items() if k not in ('model_type', 'architectures')}
    return CONFIG_MAPPING[base].from_dict(data)


def shorter(config: PreTrainedConfig, left: Sequence[int], total: int) -> PreTrainedConfig:
    """``config``, changed for the layers that are left; lists over layers lose entries too."""
    for name in (*SLIM_KEYS, 'quantization_config', 'auto_map'):
        if hasattr(config, name):
            delattr(config, name)
    for name, value in vars(config).items():
        if 'layer' in name and isinstance(value, list | tuple) and len(value) == total:
            setattr(config, name, [value[i] for i in left])
    config.num_hidden_layers = len(left)
    return config


def uniform(config: PreTrainedConfig, layer: nn.Module) -> PreTrainedConfig | None:
    """The config in which every layer is as wide as ``layer``; None where it can't be."""
    config = deepcopy(config)
    modules = dict(layer.named_modules())
    for path in MLP_OUTPUTS:
        for key in MLP_KEYS:
            if path in modules and hasattr(config, key):
                setattr(config, key, modules[path].in_features)
    attention = modules.get('self_attn')
    if attention is not None and hasattr(config, 'num_key_value_heads'):
        head_dim = getattr(attention, 'head_dim', 0)
        queries, keys = (modules.get(f'self_attn.{name}') for name in ('q_proj', 'k_proj'))
        if not head_dim or queries is None or keys is None or not keys.out_features:
            return None
        config.head_dim = head_dim
        config.num_attention_heads = queries.out_features // head_dim
        config.num_key_value_heads = keys.out_features // head_dim
    return config


def as_mistral(config: PreTrainedConfig | None) -> PreTrainedConfig | None:
    """A Llama without biases as the Mistral that computes the same; None for any other config.

    ``LlamaConfig`` refuses a number of heads that doesn't divide the hidden width, although its
    layers don't mind; ``MistralConfig`` takes it.
    """
    if type(config) is not LlamaConfig or config.attention_bias or config.mlp_bias:
        return None
    data = {k: v for k, v in config.to_dict().items() if k not in ('model_type', 'architectures')}
    return MistralConfig.from_dict({**data, 'sliding_window': None})


def built(config: PreTrainedConfig | None) -> PreTrainedModel | None:
    """What transformers builds from ``config``, on the meta device; None if it refuses it."""
    if config is None:
        return None
    try:
        # A folder's config is read back, and some architectures check their numbers there.
        config = type(config).from_dict(config.to_dict())
        with torch.device('meta'):
            return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    except (ValueError, StrictDataclassError, ZeroDivisionError, RuntimeError):
        return None


def compare(
    lm: PreTrainedModel, reference: PreTrainedModel, left: Sequence[int]
) -> tuple[list[str], dict[str, list[int]], dict[str, list[float]]]:
    """Where the layers ``left`` of a model part from those of a dense one.

    Returns:
        What widths can't say, as sentences; widths and attributes that differ in any layer, as
        ``modeling_slim.cut_layers`` takes them.
    """
    faults: list[str] = []
    own = renumbered_state(lm, left)
    expected = reference.state_dict()
    prefix = layer_prefix(reference)
    faults += [f'{name} is not part of the architecture' for name in own.keys() - expected.keys()]
    faults += [f'{name} is missing' for name in expected.keys() - own.keys()]
    faults += [
        f'{name} has the shape {tuple(own[name].shape)} instead of {tuple(tensor.shape)}'
        for name, tensor in expected.items()
        if name in own and not name.startswith(prefix) and own[name].shape != tensor.shape
    ]
    layers, others = decoder_layers(lm), decoder_layers(reference)
    mine = [layers[i] for i in left]
    widths: dict[str, list[int]] = {}
    attributes: dict[str, list[float]] = {}
    for number, (layer, other) in enumerate(zip(mine, others, strict=True)):
        dense = dict(other.named_modules())
        for path, module in layer.named_modules():
            kind, expected_kind = (
                part_of(m, model) for m, model in ((module, lm), (dense.get(path), reference))
            )
            if kind not in ('EmptyAttention', expected_kind):
                faults.append(f'{prefix}{number}.{path} is a {type(module).__name__}')
    if faults:
        return sorted(faults), widths, attributes
    for name, tensor in others[0].named_parameters():
        shapes = [layer.get_parameter(name).shape for layer in mine]
        faults += [f'{name} has {len(s)} dimensions' for s in shapes if len(s) != tensor.dim()]
        for dim, length in enumerate(tensor.shape):
            lengths = [shape[dim] for shape in shapes]
            if any(n != length for n in lengths):
                widths[f'{name}.{dim}'] = lengths
            faults += [f'{name} is wider than the config says' for n in lengths if n > length]
    for path, module in others[0].named_modules():
        for name, value in numbers(module).items():
            values = [getattr(layer.get_submodule(path), name, value) for layer in mine]
            if path and any(v != value for v in values):
                attributes[f'{path}.{name}'] = values
    return faults, widths, attributes


def part_of(module: nn.Module | None, lm: PreTrainedModel) -> str:
    """A module's class without the name of the model's family: ``'Attention'``."""
    return type(module).__name__.removeprefix('Slim').removeprefix(family(lm))


def numbers(module: nn.Module) -> dict[str, Any]:
    """The numbers that a module computes with, by attribute; what only repeats a width aside."""
    skipped = {'layer_idx', 'in_features', 'out_features', *MLP_KEYS}
    return {
        name: value
        for name, value in vars(module).items()
        if type(value) in (int, float) and name[0] != '_' and name not in skipped
    }


def layer_prefix(lm: PreTrainedModel) -> str:
    """What the names of layers begin with: ``'model.layers.'``."""
    layers = decoder_layers(lm)
    return next(name for name, module in lm.named_modules() if module is layers) + '.'


def renumbered_state(lm: PreTrainedModel, left: Sequence[int]) -> dict[str, torch.Tensor]:
    """The state dict with the layers that are left counted from 0."""
    prefix = layer_prefix(lm)
    position = {str(old): str(new) for new, old in enumerate(left)}
    state = {}
    for name, tensor in lm.state_dict().items():
        found = re.match(rf'{re.escape(prefix)}(\d+)(\..*)', name)
        state[f'{prefix}{position[found[1]]}{found[2]}' if found else name] = tensor
    return state

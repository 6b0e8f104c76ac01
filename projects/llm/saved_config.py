"""Which config describes a pruned language model: one that transformers knows, or one with widths."""

import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto import CONFIG_MAPPING

from projects.prune_plugin.common.errors import UserError

from .config_search import MLP_KEYS, as_mistral, built, fitted, narrower, uniform
from .modeling_slim import cut_layers

#: Keys that ``modeling_slim.py`` reads.
SLIM_KEYS = ('slim_widths', 'slim_attributes', 'slim_base')
#: What widths of experts are multiples of, for the kernel that transformers takes by default.
GROUPED_MM = 8


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
    widths: dict[str, list[int | None]]
    attributes: dict[str, list[Any]]

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
    own = {name: tuple(t.shape) for name, t in renumbered_state(lm, left).items()}
    config = shorter(dense_config(lm.config), left, len(layers))
    config = narrower(config, lm, own, layer_prefix(lm))
    even = uniform(config, layers[left[0]])

    def changes(reference: PreTrainedModel) -> int:
        return len(compare(lm, reference, left)[2])

    for make in (
        lambda: config,
        lambda: even,
        lambda: as_mistral(even),
        lambda: fitted(even, own, changes),
        lambda: fitted(config, own, changes),
        lambda: as_mistral(fitted(config, own, changes)),
    ):
        candidate = make()
        reference = built(candidate)
        if reference is None:
            continue
        faults, widths, attributes = compare(lm, reference, left)
        if not (faults or widths) and agree(lm, candidate, left, not attributes):
            return Described(candidate, type(reference), left, {}, {})
    return described_by_widths(lm, config, left)


def described_by_widths(
    lm: PreTrainedModel, config: PreTrainedConfig, left: Sequence[int]
) -> Described:
    """The config of the dense layers, and how wide each layer is.

    Raises:
        UserError: that doesn't say what the model computes.
    """
    for candidate in (config, as_mistral(config)):
        reference = built(candidate)
        if reference is not None:
            break
    else:
        raise UserError(
            f'--save-hf: transformers does not build a {type(lm).__name__} of this config'
        )
    faults, widths, attributes = compare(lm, reference, left)
    if faults:
        raise UserError(
            f'--save-hf: {faults[0]}; only dense models and those that lost weights, heads, MLP '
            'channels, experts or whole layers can be saved'
        )
    if not agree(lm, candidate, left, True, widths, attributes):
        raise UserError(
            f'--save-hf: built from its widths, {type(lm).__name__} computes something else: a number that '
            'no width says has changed; prune other kinds of units'
        )
    return Described(candidate, type(reference), left, widths, attributes)


def agree(
    lm: PreTrainedModel,
    config: PreTrainedConfig,
    left: Sequence[int],
    alike: bool,
    widths: dict[str, list[int | None]] = {},  # noqa: B006  read, never changed
    attributes: dict[str, list[Any]] = {},  # noqa: B006
) -> bool:
    """Whether what a config builds computes what a model computes: tried, or without weights as it seems.

    Args:
        lm: The model.
        config: The config.
        left: Positions of the layers that are left.
        alike: Whether all numbers of their layers are equal.
        widths: As ``modeling_slim.cut_layers`` takes them.
        attributes: The same.
    """
    if any(parameter.is_meta for parameter in lm.parameters()):
        return alike
    reference = built(config, buffers=True)
    if reference is None:
        return False
    cut_layers(reference, widths, attributes)
    return same_outputs(lm, reference, left)


def decoder_layers(lm: PreTrainedModel) -> nn.ModuleList:
    """The list of decoder layers."""
    decoder = lm.get_decoder()
    lists = [m for m in decoder.children() if isinstance(m, nn.ModuleList)]
    lists = [m for m in lists if len(m) == lm.config.num_hidden_layers] or lists
    if len(lists) != 1:
        raise UserError(
            f'--save-hf: {type(lm).__name__} has {len(lists)} lists of layers in its decoder; only models '
            'with one can be saved'
        )
    return lists[0]


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


@torch.no_grad()
def same_outputs(lm: PreTrainedModel, reference: PreTrainedModel, left: Sequence[int]) -> bool:
    """Whether a reference with a model's weights gives what the model gives.

    Args:
        lm: The model.
        reference: With parameters on the meta device; it gets the model's tensors themselves.
        left: Positions of the layers that are left.
    """
    reference.load_state_dict(renumbered_state(lm, left), assign=True)
    for module in reference.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(lm.device))
    tokens = torch.arange(1, min(13, lm.config.vocab_size), device=lm.device)[None]
    training = lm.training
    try:
        ours = lm.eval()(tokens, use_cache=False).logits.float()
        theirs = reference.eval()(tokens, use_cache=False).logits.float()
    except (LookupError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
    finally:
        lm.train(training)
    limit = max(1e-4, 8 * torch.finfo(lm.dtype).eps)
    return bool((ours - theirs).abs().max() <= limit * ours.abs().max())


def compare(
    lm: PreTrainedModel, reference: PreTrainedModel, left: Sequence[int]
) -> tuple[list[str], dict[str, list[int | None]], dict[str, list[Any]]]:
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
    widths: dict[str, list[int | None]] = {}
    attributes: dict[str, list[Any]] = {}
    for number, (layer, other) in enumerate(zip(mine, others, strict=True)):
        dense = dict(other.named_modules())
        for path, module in layer.named_modules():
            kind, expected_kind = (
                part_of(m, model) for m, model in ((module, lm), (dense.get(path), reference))
            )
            if kind not in ('EmptyAttention', expected_kind):
                faults.append(f'{prefix}{number}.{path} is a {type(module).__name__}')
    faults += [f'{name} {why}' for name, m in lm.named_modules() if (why := own_forward(m))]
    if faults:
        return sorted(faults), widths, attributes
    states = [layer.state_dict() for layer in mine]
    dense_states = [other.state_dict() for other in others]
    for name in dict.fromkeys(key for state in dense_states for key in state):
        pairs = [
            (own[name].shape, dense[name].shape) if name in dense else None
            for own, dense in zip(states, dense_states, strict=True)
        ]
        present = [pair for pair in pairs if pair is not None]
        if any(len(a) != len(b) for a, b in present):
            faults.append(f'{name} has another number of dimensions')
            continue
        for dim in range(len(present[0][1])):
            lengths = [None if pair is None else pair[0][dim] for pair in pairs]
            if any(a[dim] != b[dim] for a, b in present):
                widths[f'{name}.{dim}'] = lengths
            faults += [
                f'{name} is wider than the config says' for a, b in present if a[dim] > b[dim]
            ]
    for path in dict.fromkeys(path for other in others for path, _ in other.named_modules()):
        inner = [(find(a, path), find(b, path)) for a, b in zip(mine, others, strict=True)]
        for name in dict.fromkeys(name for _, b in inner if b is not None for name in numbers(b)):
            values = [None if a is None else getattr(a, name, None) for a, _ in inner]
            dense = [None if b is None else getattr(b, name, None) for _, b in inner]
            values = [d if v is None else v for v, d in zip(values, dense, strict=True)]
            if path and values != dense:
                attributes[f'{path}.{name}'] = values
    return faults, widths, attributes


def find(layer: nn.Module, path: str) -> nn.Module | None:
    """A module in a layer, or None."""
    try:
        return layer.get_submodule(path)
    except AttributeError:
        return None


def own_forward(module: nn.Module) -> str:
    """Why no config says what a module computes; empty if it computes what its class does."""
    dense = getattr(module, 'dense_features', None)
    if dense is not None and dense != next(module.parameters()).shape[0]:
        return 'counts removed features as zeros'
    if getattr(type(module), 'inferred_sizes', None) is not None:
        return 'computes sizes that its class takes from its input'
    implementation = getattr(getattr(module, 'config', None), '_experts_implementation', None)
    if implementation == 'eager' and hasattr(module, '_is_expert_parallel'):
        wide = [p.shape[-1] for p in module.parameters(recurse=False) if p.dim() == 3]
        if any(length % GROUPED_MM for length in wide):
            return f'has experts of a width that is no multiple of {GROUPED_MM}, which their kernel needs'
    return ''


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
    rename = renumbering(lm, left)
    return {rename(name): tensor for name, tensor in lm.state_dict().items()}


def renumbering(lm: PreTrainedModel, left: Sequence[int]) -> Callable[[str], str]:
    """A function that gives a tensor's name with the layers that are left counted from 0."""
    prefix = layer_prefix(lm)
    position = {str(old): str(new) for new, old in enumerate(left)}

    def rename(name: str) -> str:
        found = re.match(rf'{re.escape(prefix)}(\d+)(\..*)', name)
        return f'{prefix}{position[found[1]]}{found[2]}' if found else name

    return rename

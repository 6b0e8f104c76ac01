"""Finding the numbers of a config with which transformers builds a pruned model."""

import math
from collections.abc import Callable
from copy import deepcopy

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import LlamaConfig, MistralConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import MODEL_FOR_CAUSAL_LM_MAPPING

from projects.prune_plugin.common.meta_parameters import parameters_on_meta

#: Shapes of tensors by name.
Shapes = dict[str, tuple[int, ...]]
#: Where a layer's MLP width is read, and what configs call it.
MLP_OUTPUTS = ('mlp.down_proj', 'fc2', 'mlp.dense_4h_to_h')
MLP_KEYS = ('intermediate_size', 'ffn_dim')
#: Widths that follow from others where configs leave them out.
UNSET_WIDTHS = ('n_inner', 'intermediate_size', 'ffn_hidden_size', 'head_dim')
#: What configs call the width of the residual stream, and the epsilon of its norms.
STREAM_WIDTHS = ('hidden_size', 'n_embd', 'd_model')
EPSILONS = ('rms_norm_eps', 'layer_norm_eps', 'norm_eps')


def built(config: PreTrainedConfig | None, buffers: bool = False) -> PreTrainedModel | None:
    """What transformers builds from ``config``, with parameters on the meta device; None if it refuses.

    Args:
        config: The config.
        buffers: Whether buffers, which follow from the config, get their values.
    """
    if config is None:
        return None
    try:
        # A folder's config is read back, and some architectures check their numbers there.
        config = type(config).from_dict(config.to_dict())
        with parameters_on_meta() if buffers else torch.device('meta'):
            return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    except (ValueError, StrictDataclassError, ZeroDivisionError, RuntimeError):
        return None


def narrower(
    config: PreTrainedConfig, lm: PreTrainedModel, own: Shapes, prefix: str
) -> PreTrainedConfig:
    """``config`` with the width of the residual stream and the norms' epsilon as in a model, if it can be.

    Args:
        config: Of the dense model with the layers that are left.
        lm: The model.
        own: Shapes of its tensors.
        prefix: What the names of layers begin with.
    """
    reference = built(config)
    if reference is None:
        return config
    outer = {name: shape for name, shape in own.items() if not name.startswith(prefix)}
    expected = {n: tuple(t.shape) for n, t in reference.state_dict().items() if n in outer}
    if expected.keys() != outer.keys() or expected == outer:
        return config
    changed = {(d, s) for n in outer for d, s in zip(expected[n], outer[n], strict=False) if d != s}
    if len(changed) != 1:
        return config
    ((dense, slim),) = changed
    config = deepcopy(config)
    for key, value in vars(config).items():
        if key in STREAM_WIDTHS and value == dense:
            setattr(config, key, slim)
    final = [
        m for n, m in lm.named_modules() if 'Norm' in type(m).__name__ and f'{n}.weight' in outer
    ]
    epsilons = {v for m in final for k, v in vars(m).items() if 'eps' in k and type(v) is float}
    for key in EPSILONS:
        if hasattr(config, key) and len(epsilons) == 1:
            setattr(config, key, *epsilons)
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


def fitted(
    config: PreTrainedConfig | None,
    own: Shapes,
    changes: Callable[[PreTrainedModel], int],
) -> PreTrainedConfig | None:
    """The config whose numbers give a model's widths, found by trying; None if there is none.

    A width of the dense model that is a multiple of one of the config's numbers may follow it. Of all such
    numbers the one that mends most is changed, again and again, until all shapes are right.

    Args:
        config: Of the dense model with the layers that are left.
        own: Shapes of the model's tensors.
        changes: How many other numbers differ between the model and a reference.
    """
    reference = built(config)
    wrong = None if reference is None else misfits(own, reference)
    if config is None or wrong is None:
        return None
    while wrong:
        found = None
        least = len(wrong), math.inf
        for key, value in options(config, wrong):
            trial = deepcopy(config)
            setattr(trial, key, value)
            reference = built(trial)
            rest = None if reference is None else misfits(own, reference)
            if rest is None or len(rest) > least[0] or len(rest) >= len(wrong):
                continue
            size = len(rest), changes(reference)  # of equal ones, what changes least
            if size < least:
                found, least = (trial, rest), size
        if found is None:
            return None
        config, wrong = found
    return config


def misfits(own: Shapes, reference: PreTrainedModel) -> list[tuple[int, int]] | None:
    """Lengths in a reference and in a model, for each tensor and dimension where they differ."""
    expected = {name: tuple(t.shape) for name, t in reference.state_dict().items()}
    if expected.keys() != own.keys() or any(len(expected[n]) != len(own[n]) for n in own):
        return None
    pairs = [pair for name in own for pair in zip(expected[name], own[name], strict=True)]
    return [(dense, slim) for dense, slim in pairs if dense != slim]


def options(config: PreTrainedConfig, wrong: list[tuple[int, int]]) -> list[tuple[str, int]]:
    """Numbers of a config that a changed width may follow, and what they would become."""
    found = {}
    for dense, slim in dict.fromkeys(wrong):
        for key, value in vars(config).items():
            if value is None and key in UNSET_WIDTHS:
                found[key, slim] = None
            if type(value) is int and value > 0 and dense % value == 0:
                times = dense // value
                if slim and slim % times == 0:
                    found[key, slim // times] = None
    return list(found)


def as_mistral(config: PreTrainedConfig | None) -> PreTrainedConfig | None:
    """A Llama without biases as the Mistral that computes the same; None for any other config.

    ``LlamaConfig`` refuses a number of heads that doesn't divide the hidden width, although its
    layers don't mind; ``MistralConfig`` takes it.
    """
    if type(config) is not LlamaConfig or config.attention_bias or config.mlp_bias:
        return None
    data = {k: v for k, v in config.to_dict().items() if k not in ('model_type', 'architectures')}
    return MistralConfig.from_dict({**data, 'sliding_window': None})

"""``--save-gguf``: a language model as one file for llama.cpp, dense, masked or slim."""

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import torch
from mmengine.logging import print_log
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.common.version import __version__

from ..models.sources import Source, find_source
from ..plain_norms import is_slim, with_plain_norms
from ..saved_config import decoder_layers, renumbered_state
from .architectures import FLAG, Architecture, architecture_of
from .checking import check_file
from .layout import (
    FILE_TYPES,
    Layers,
    architecture_for,
    check_type,
    interleaved,
    layers_of,
    mapped,
    stored,
)
from .tokenizers import add_tokenizer


def save_gguf(
    lm: PreTrainedModel, path: str | os.PathLike, kind: str = 'f16', source: str | None = None
) -> None:
    """Write a model as a GGUF file, which appears whole or not at all.

    Layers that differ in heads or neurons are written as llama.cpp's ``deci``, which has lists of widths
    and layers without attention or MLP; even ones as their own architecture. Where ``xllamacpp`` is
    installed, the file is loaded in llama.cpp and has to give the same next tokens.

    Args:
        lm: A Llama, Mistral, Qwen or Gemma; dense, or slim.
        path: The file.
        kind: Of the weights, a key of ``layout.TYPES``.
        source: The model's ``path``, where its tokenizer lies; None: without one.

    Raises:
        UserError: an architecture, a width or a tokenizer that such a file can't hold.
    """
    path = Path(path)
    described = Described.of(lm)
    window = getattr(described.config, 'sliding_window', None)
    if window and described.config.model_type == 'mistral':
        print_log(
            f'--save-gguf: attention sees the last {window} tokens here, and everything in llama.cpp: they '
            'differ in longer texts',
            'current',
            logging.WARNING,
        )
    check_type(kind, described.state)
    temporary = path.with_name(f'.{path.name}.part')
    place = None if source is None else find_source(source, needed='tokenizer*')
    try:
        write(described, temporary, kind, place, source)
        checked = check_file(described.lm, temporary, source, kind)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    print_log(f'saved {path}: {described.architecture.name}, {kind}; {checked}', 'current')


class Described:
    """What of a model goes into a file.

    Args:
        lm: The model.
        left: Positions of the layers that are left.

    Attributes:
        config: Its config.
        state: Its tensors by transformers' names, layers counted from 0, tied ones once.
        layers: Their widths.
        architecture: llama.cpp's.
        keys: Numbers that this architecture has beside: ``{method of GGUFWriter: value}``.
        left: As given.
    """

    def __init__(self, lm: PreTrainedModel, left: list[int]):
        self.lm, self.left, self.config = lm, left, lm.config
        own = architecture_of(self.config)
        self.state = without_ties(renumbered_state(lm, left))
        self.layers = layers_of(self.config, self.state, len(left))
        self.architecture = architecture_for(own, self.layers)
        self.keys = own.keys(self.config, left)
        self.state = without_empty(self.state, self.layers)
        width = self.state['model.embed_tokens.weight'].shape[1]
        if own.scaled_embeddings and width != self.config.hidden_size:
            raise UserError(
                f'{FLAG}: {own.name} scales its embeddings by the root of their width, which pruning has '
                f'changed ({self.config.hidden_size} to {width}); prune other kinds of units'
            )

    @classmethod
    def of(cls, lm: PreTrainedModel) -> 'Described':
        """Of a model, whose norms are those of its class."""
        lm = with_plain_norms(lm)
        if any(is_slim(module) for module in lm.modules()):
            raise UserError(f'{FLAG}: norms over fewer features cannot be written as plain ones')
        layers = decoder_layers(lm)
        left = [i for i, layer in enumerate(layers) if type(layer).__name__ != 'SkipLayer']
        return cls(lm, left)

    @property
    def epsilon(self) -> float:
        """Of the norms, which llama.cpp has in common for all.

        Raises:
            UserError: they differ.
        """
        found = {
            vars(module)[name]
            for module in self.lm.modules()
            if type(module).__name__.endswith('RMSNorm')
            for name in ('variance_epsilon', 'eps')
            if name in vars(module)
        }
        if len(found) != 1:
            raise UserError(f'{FLAG}: the norms have different epsilons, {sorted(found)}')
        return found.pop()


def without_ties(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each place in memory once."""
    first: dict[tuple, str] = {}
    return {
        name: tensor
        for name, tensor in state.items()
        if first.setdefault((tensor.data_ptr(), tensor.shape), name) == name or not tensor.numel()
    }


def without_empty(state: Mapping[str, Tensor], layers: Layers) -> dict[str, Tensor]:
    """The tensors without those of attentions and MLPs that have no units left.

    Raises:
        UserError: a bias is left of one.
    """
    kept = dict(state)
    parts = (
        ('self_attn', 'input_layernorm', layers.heads),
        ('mlp', 'post_attention_layernorm', layers.widths),
    )
    for part, norm, sizes in parts:
        for layer in (i for i, size in enumerate(sizes) if not size):
            start = f'model.layers.{layer}.'
            for name in [n for n in kept if n.startswith((f'{start}{part}.', f'{start}{norm}.'))]:
                if kept[name].numel() and name.endswith('.bias') and kept[name].any():
                    raise UserError(
                        f'{FLAG}: {start}{part} has lost all its units but for {name}, for which llama.cpp '
                        'has no place; keep at least one'
                    )
                del kept[name]
    return kept


def write(
    described: Described, path: Path, kind: str, source: Source | None, given: str | None
) -> None:
    """Write the file."""
    config, layers, architecture = described.config, described.layers, described.architecture
    state = described.state
    size = state['model.embed_tokens.weight'].shape[0]
    writer = gguf.GGUFWriter(path, architecture.name, use_temp_file=True)
    writer.add_name(Path(given).stem if given else 'model')
    writer.add_description(f'pruned with mm-prune {__version__}')
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(size)
    add_numbers(writer, described)
    add_tokenizer(writer, source, given, size)
    for name, place in mapped(list(state), architecture, len(described.left)).items():
        values, its_type = stored(adapted(name, state[name], architecture, layers), kind)
        writer.add_tensor(place, values, raw_dtype=its_type)
    factors = rope_factors(config, layers.head_dim)
    if factors is not None:
        writer.add_tensor('rope_freqs.weight', factors.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_numbers(writer: gguf.GGUFWriter, described: Described) -> None:
    """Write widths and what else the config says."""
    config, layers = described.config, described.layers
    several = not layers.even
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(described.state['model.embed_tokens.weight'].shape[1])
    writer.add_block_count(len(described.left))
    writer.add_feed_forward_length(layers.widths if several else layers.widths[0])
    writer.add_head_count(layers.heads if several else layers.heads[0])
    writer.add_head_count_kv(layers.kv_heads if several else layers.kv_heads[0])
    writer.add_key_length(layers.head_dim)
    writer.add_value_length(layers.head_dim)
    writer.add_rope_dimension_count(layers.head_dim)
    writer.add_layer_norm_rms_eps(described.epsilon)
    rope = rope_of(config)
    writer.add_rope_freq_base(float(rope['rope_theta']))
    if rope.get('rope_type') == 'linear':
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope['factor']))
    for method, value in described.keys.items():
        if value is not None:
            getattr(writer, method)(value)


def rope_of(config: PreTrainedConfig) -> dict[str, Any]:
    """The rotary embedding of layers that attend to everything.

    Raises:
        UserError: it is of a kind that isn't written here.
    """
    rope = dict(config.rope_parameters or {})
    rope = dict(rope.get('full_attention', rope))
    kind = rope.get('rope_type', 'default')
    if kind not in ('default', 'linear', 'llama3') or rope.get('partial_rotary_factor', 1) != 1:
        raise UserError(
            f'{FLAG}: a rotary embedding of type {kind!r} (partial: '
            f'{rope.get("partial_rotary_factor", 1)}) is not written; save a folder with --save-hf'
        )
    return rope


def rope_factors(config: PreTrainedConfig, head_dim: int) -> Tensor | None:
    """What each frequency is divided by in Llama 3's scaling; None for others.

    Source: the Llama 3.1 model card's reference code: long waves are stretched by ``factor``, short ones
    not, those between in proportion.
    """
    rope = rope_of(config)
    if rope.get('rope_type') != 'llama3':
        return None
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    waves = 2 * math.pi * float(rope['rope_theta']) ** exponents
    factor, low, high = (
        float(rope[key]) for key in ('factor', 'low_freq_factor', 'high_freq_factor')
    )
    context = float(rope['original_max_position_embeddings'])
    smooth = ((context / waves - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).float()


def adapted(name: str, tensor: Tensor, architecture: Architecture, layers: Layers) -> Tensor:
    """A tensor as llama.cpp wants it."""
    words = name.split('.')
    if architecture.interleaved and words[-2] in ('q_proj', 'k_proj'):
        counts = layers.heads if words[-2] == 'q_proj' else layers.kv_heads
        return interleaved(tensor, counts[int(words[2])])
    if architecture.norm_offset and 'norm' in words[-2]:
        return tensor.float() + architecture.norm_offset
    return tensor

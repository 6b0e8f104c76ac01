"""What llama.cpp calls transformers' architectures, and what it wants of their weights and numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from projects.prune_plugin.common.errors import UserError

FLAG = '--save-gguf'
#: Layers of which every one, counted from 1, attends to everything in Gemma 3.
GEMMA3_PATTERN = 6


@dataclass(frozen=True)
class Architecture:
    """An architecture of llama.cpp.

    Attributes:
        name: ``general.architecture``.
        interleaved: Whether its rotary embedding turns neighbouring numbers, not halves.
        uneven: Whether layers that differ in width can be said as ``deci``, which has no norms of queries
            and keys, no norms after layers and no scaled embeddings.
        norm_offset: What is added to the weights of norms.
        scaled_embeddings: Whether embeddings are multiplied by the square root of the width.
        keys: More numbers: from a config to ``{method of GGUFWriter: value}``.
    """

    name: str
    interleaved: bool = False
    uneven: bool = False
    norm_offset: float = 0.0
    scaled_embeddings: bool = False
    keys: Callable[[PreTrainedConfig, list[int]], Mapping[str, Any]] = lambda config, left: {}


def gemma2_keys(config: PreTrainedConfig, left: list[int]) -> Mapping[str, Any]:
    """Soft caps and the sliding window."""
    check_scale(config)
    check_pattern(config, left, 2)
    return {
        'add_attn_logit_softcapping': config.attn_logit_softcapping,
        'add_final_logit_softcapping': config.final_logit_softcapping,
        'add_sliding_window': config.sliding_window,
    }


def gemma3_keys(config: PreTrainedConfig, left: list[int]) -> Mapping[str, Any]:
    """The sliding window."""
    check_scale(config)
    check_pattern(config, left, GEMMA3_PATTERN)
    return {'add_sliding_window': config.sliding_window}


def check_scale(config: PreTrainedConfig) -> None:
    """Raise :class:`UserError` unless scores are divided by the root of the heads' width."""
    if config.query_pre_attn_scalar != config.head_dim:
        raise UserError(
            f'{FLAG}: query_pre_attn_scalar is {config.query_pre_attn_scalar}, and llama.cpp takes the '
            f"heads' width, {config.head_dim}; save a folder with --save-hf instead"
        )


def check_pattern(config: PreTrainedConfig, left: list[int], period: int) -> None:
    """Raise :class:`UserError` unless every ``period``-th layer, and no other, attends to everything."""
    kinds = [config.layer_types[i] for i in left]
    expected = [(i + 1) % period == 0 for i in range(len(kinds))]
    if [kind == 'full_attention' for kind in kinds] != expected:
        raise UserError(
            f'{FLAG}: llama.cpp takes every {period}th layer of this architecture to attend to everything, '
            'and with the layers that are gone it is others; keep whole layers'
        )


LLAMA = Architecture('llama', interleaved=True, uneven=True)


def check_windows(config: PreTrainedConfig, left: list[int]) -> Mapping[str, Any]:
    """Raise :class:`UserError` where some layers see a window alone, which llama.cpp would not do."""
    if 'sliding_attention' in (getattr(config, 'layer_types', None) or ()):
        raise UserError(
            f'{FLAG}: some layers see the last {config.sliding_window} tokens alone, and in llama.cpp all '
            'would see everything; save a folder with --save-hf instead'
        )
    return {}


#: By ``model_type`` of transformers.
ARCHITECTURES = {
    'llama': LLAMA,
    'mistral': LLAMA,
    'qwen2': Architecture('qwen2', uneven=True, keys=check_windows),
    'qwen3': Architecture('qwen3', keys=check_windows),
    'gemma': Architecture('gemma', norm_offset=1.0, scaled_embeddings=True),
    'gemma2': Architecture('gemma2', norm_offset=1.0, scaled_embeddings=True, keys=gemma2_keys),
    'gemma3_text': Architecture(
        'gemma3', norm_offset=1.0, scaled_embeddings=True, keys=gemma3_keys
    ),
}
#: Architectures with a width per layer.
UNEVEN = Architecture('deci', interleaved=True, uneven=True)


def architecture_of(config: PreTrainedConfig) -> Architecture:
    """The architecture of a config.

    Raises:
        UserError: this export doesn't know it.
    """
    kind = getattr(config, 'slim_base', None) or config.model_type
    if kind not in ARCHITECTURES:
        raise UserError(
            f'{FLAG}: {kind} is not among the architectures that can be written, '
            f'{", ".join(ARCHITECTURES)}; save a folder with --save-hf instead'
        )
    return ARCHITECTURES[kind]

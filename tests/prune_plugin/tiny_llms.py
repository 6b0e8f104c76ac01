"""Small language models beside Llama and OPT, and their parameter counts worked out by hand.

``count(kept, ...)`` is as in ``tiny_models.py``: from the units kept by group to parameters.
"""

from torch import nn

VOCABULARY, HIDDEN, HEADS, LAYERS = 96, 32, 4, 2
MLP = 48
COMMON = dict(
    vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=MLP, num_hidden_layers=LAYERS,
    num_attention_heads=HEADS, max_position_embeddings=64, tie_word_embeddings=False,
    pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip


def causal_lm(kind: str, **kwargs) -> nn.Module:
    """A transformers causal LM; ``kind`` is the stem of its class names (``Qwen3``)."""
    import transformers

    name = 'Gemma3TextConfig' if kind == 'Gemma3' else f'{kind}Config'
    config = getattr(transformers, name)(**{**COMMON, **kwargs})
    return getattr(transformers, f'{kind}ForCausalLM')(config)


def neox(parallel: bool = True) -> nn.Module:
    rope = dict(rope_type='default', rope_theta=1e4, partial_rotary_factor=0.5)
    return causal_lm('GPTNeoX', use_parallel_residual=parallel, rope_parameters=rope)


def neox_count(kept) -> int:
    head, total = HIDDEN // HEADS, 2 * VOCABULARY * HIDDEN + 2 * HIDDEN
    for i in range(LAYERS):
        layer = f'gpt_neox.layers.{i}'
        if kept.get(layer, 1) == 0:
            continue
        heads, mlp = kept.get(f'{layer}.attention', HEADS), kept.get(f'{layer}.mlp', MLP)
        total += heads * 3 * head * (HIDDEN + 1) + heads * head * HIDDEN + HIDDEN
        total += mlp * (HIDDEN + 1) + mlp * HIDDEN + HIDDEN + 2 * 2 * HIDDEN
    return total


def gqa(kind: str, **kwargs) -> nn.Module:
    """Two query heads of 8 to one of two KV heads."""
    return causal_lm(kind, num_key_value_heads=2, head_dim=HIDDEN // HEADS, **kwargs)


def gqa_count(kept, qkv_bias: bool = False, head_norms: bool = False, norms: int = 2) -> int:
    """Two KV groups of 8 in each layer.

    Args:
        qkv_bias: The three input projections have biases (Qwen2).
        head_norms: Queries and keys have a norm over the head's width (Qwen3, Gemma3).
        norms: Norms in each layer.
    """
    head, total = HIDDEN // HEADS, 2 * VOCABULARY * HIDDEN + HIDDEN
    for i in range(LAYERS):
        layer = f'model.layers.{i}'
        if kept.get(layer, 1) == 0:
            continue
        groups, mlp = kept.get(f'{layer}.self_attn', 2), kept.get(f'{layer}.mlp', MLP)
        total += groups * head * ((2 + 1 + 1) * (HIDDEN + qkv_bias) + 2 * HIDDEN)
        total += 2 * head * head_norms + 3 * mlp * HIDDEN + norms * HIDDEN
    return total

"""Small models to write as GGUF files, and the mark of tests that run them in llama.cpp."""

import importlib.util

import pytest
import torch
import transformers

from projects.prune_plugin import build_pruner

COMMON = dict(
    vocab_size=49152, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=256,
    pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
UNEVEN = dict(
    criterion=dict(type='Random'), allocator=dict(type='Global'), min_keep=0,
    budget=dict(type='units', ratio=0.4),
)  # fmt: skip
#: One attention and one MLP go as a whole.
SUBLAYERS = dict(
    units=[dict(type='PreNormSublayers')], exclude=[r'.*[02]\.self_attn'], min_keep=0,
    budget=dict(type='units', ratio=0.5),
)  # fmt: skip
HALF = dict(allocator=dict(type='Uniform'), budget=dict(type='units', ratio=0.5))
LLAMA3 = dict(
    rope_type='llama3', rope_theta=1e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=64,
)  # fmt: skip
in_llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec('xllamacpp') is None, reason='xllamacpp is not installed'
)


def causal_lm(kind: str = 'Llama', prune: dict | None = None, **config):
    """A model with weights that tell its parts apart, pruned if asked."""
    name = 'Gemma3TextConfig' if kind == 'Gemma3' else f'{kind}Config'
    torch.manual_seed(0)
    lm = getattr(transformers, f'{kind}ForCausalLM')(
        getattr(transformers, name)(**{**COMMON, **config})
    ).eval()
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            parameter += (0.3 if 'norm' in name else 0.1) * torch.randn_like(parameter)
    if prune:
        pruner = build_pruner(prune)
        pruner.apply(lm, pruner.plan(lm))
    return lm

"""Tiny causal language models of five families, and an independent perplexity."""

import math

import torch

VOCABULARY = 96
SHARED = dict(
    vocab_size=VOCABULARY, num_hidden_layers=2, max_position_embeddings=64, bos_token_id=0,
    eos_token_id=0, pad_token_id=1,
)  # fmt: skip
GQA = dict(SHARED, hidden_size=32, intermediate_size=48, num_attention_heads=4,
           num_key_value_heads=2)  # fmt: skip
ARCHITECTURES = {
    'llama': dict(GQA, model_type='llama', tie_word_embeddings=True),
    'qwen2': dict(GQA, model_type='qwen2', tie_word_embeddings=True),
    'qwen3': dict(GQA, model_type='qwen3', head_dim=16),
    'mistral': dict(GQA, model_type='mistral', sliding_window=None),
    'opt': dict(SHARED, model_type='opt', hidden_size=32, ffn_dim=64, num_attention_heads=4,
                word_embed_proj_dim=16, do_layer_norm_before=False, dropout=0.0),
    'gpt_neox': dict(SHARED, model_type='gpt_neox', hidden_size=32, intermediate_size=64,
                     num_attention_heads=4),
}  # fmt: skip
LLAMA = ARCHITECTURES['llama']


@torch.no_grad()
def plain_perplexity(lm, tokens: torch.Tensor, window: int, stride: int, windows: int) -> float:
    """Perplexity as in transformers' own guide: a loop with ``labels``, tokens seen masked out."""
    total, count, shown = 0.0, 0, 0
    for i in range(windows):
        ids = tokens[i * stride : i * stride + window][None]
        labels = ids.clone()
        labels[:, : max(shown - i * stride, 0)] = -100
        scored = int((labels[:, 1:] != -100).sum())
        total += float(lm(input_ids=ids, labels=labels).loss) * scored
        count += scored
        shown = i * stride + window
    return math.exp(total / count)

"""Attention of Hugging Face's language models: a unit is a KV head with all its query heads."""

from torch import nn

from ..unit_group import Attr, UnitGroup
from .attention import AttentionHeads, linear_cuts
from .finder import NotPrunable, join, require


@AttentionHeads.layout(
    'LlamaAttention',
    'MistralAttention',
    'MixtralAttention',
    'Qwen2Attention',
    'Qwen3Attention',
    'GemmaAttention',
    'Gemma2Attention',
    'Gemma3Attention',
    'OPTAttention',
)
def separate_projections(name: str, module: nn.Module) -> list[UnitGroup]:
    """Separate ``q_proj``, ``k_proj``, ``v_proj`` and output projection, with any number of KV heads.

    Norms of queries and keys (Qwen3, Gemma3) are shared by all heads and not cut.
    """
    out = 'o_proj' if hasattr(module, 'o_proj') else 'out_proj'
    head = module.head_dim
    groups, rest = divmod(module.k_proj.out_features, head)
    per_group, uneven = divmod(module.q_proj.out_features, max(groups, 1) * head)
    require(groups > 0 and not rest and not uneven, 'query and KV heads do not divide evenly')
    cuts = linear_cuts(join(name, 'q_proj'), module.q_proj, 'in', per_group * head)
    cuts += linear_cuts(join(name, 'k_proj'), module.k_proj, 'in', head)
    cuts += linear_cuts(join(name, 'v_proj'), module.v_proj, 'in', head)
    cuts += linear_cuts(join(name, out), getattr(module, out), 'out', per_group * head)
    attrs = (Attr(name, 'num_heads', per_group),) if hasattr(module, 'num_heads') else ()
    return [hf_group(name, groups, cuts, attrs)]


@AttentionHeads.layout('GPTNeoXAttention')
def gpt_neox_attention(name: str, module: nn.Module) -> list[UnitGroup]:
    """GPT-NeoX: fused ``query_key_value`` with rows ordered head x [q | k | v] x head_size."""
    head, fused = module.head_size, module.query_key_value
    cuts = linear_cuts(join(name, 'query_key_value'), fused, 'in', 3 * head)
    cuts += linear_cuts(join(name, 'dense'), module.dense, 'out', head)
    return [hf_group(name, module.dense.in_features // head, cuts)]


@AttentionHeads.layout('Phi3Attention')
def phi3_attention(name: str, module: nn.Module) -> list[UnitGroup]:
    """Phi-3 can't be cut: it splits queries from keys at an offset taken from the model's config."""
    raise NotPrunable('it reads the number of its heads from the config')


def hf_group(name: str, size: int, cuts: list, attrs: tuple[Attr, ...] = ()) -> UnitGroup:
    """The unit group of an attention module of which all heads may be removed."""
    emptied = ((name, 'EmptyAttention'),)
    return UnitGroup(name, 'attention', size, tuple(cuts), name, attrs, emptied=emptied)

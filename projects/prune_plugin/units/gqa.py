"""Grouped-query attention of Hugging Face models: one KV head goes with all its query heads."""

from torch import nn

from .attention import AttentionHeads, linear_cuts
from .base import Attr, UnitGroup
from .finder import join, require


@AttentionHeads.layout(
    'LlamaAttention',
    'MistralAttention',
    'MixtralAttention',
    'Qwen2Attention',
    'Qwen3Attention',
    'GemmaAttention',
    'Gemma2Attention',
    'OPTAttention',
)
def separate_projections(name: str, module: nn.Module) -> list[UnitGroup]:
    """``q_proj``, ``k_proj``, ``v_proj`` and an output projection; multi-head is the 1:1 case."""
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
    # OPT infers the length of the sequence from the number of elements, of which there must be some.
    least = 1 if attrs else 0
    return [UnitGroup(name, 'attention', groups, tuple(cuts), name, attrs, least=least)]

"""What each rank holds in training, from the shapes of the parameters alone."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

GIB = 2**30
RANKS = (1, 2, 4, 8)
STRATEGIES = ('DDP', 'FSDP2')


def elements_held(parameter: Tensor, ranks: int, sharded: bool) -> int:
    """Elements of a parameter on the rank that holds most of it.

    FSDP2 (``fully_shard``) cuts every parameter along its first dimension into equal runs of rows,
    of which the last may be shorter; DDP keeps all of it everywhere.
    """
    if not sharded or not parameter.dim() or not parameter.numel():
        return parameter.numel()
    rows = parameter.shape[0]
    return -(-rows // ranks) * (parameter.numel() // rows)


def rank_memory(parameters: Iterable[Tensor], ranks: int, sharded: bool) -> dict[str, int]:
    """Bytes on the fullest rank: ``weights``, ``gradients``, ``adamw``, ``total``.

    Each in the parameter's own type, as mixed precision by autocast keeps it. Gradients and the two
    moments of AdamW are there for parameters that are trained. Activations, buffers, and what
    FSDP2 gathers for the block at work aren't counted.

    Args:
        parameters: Every parameter once; meta tensors will do.
        ranks: Number of ranks.
        sharded: FSDP2 instead of DDP.
    """
    weights = trained = 0
    for parameter in parameters:
        size = elements_held(parameter, ranks, sharded) * parameter.element_size()
        weights += size
        trained += size if parameter.requires_grad else 0
    parts = dict(weights=weights, gradients=trained, adamw=2 * trained)
    return {**parts, 'total': sum(parts.values())}


def memory_table(models: dict[str, nn.Module]) -> list[dict[str, Any]]:
    """:func:`rank_memory` in GiB of each model under each strategy for 1, 2, 4 and 8 ranks."""
    rows = []
    for name, model in models.items():
        for strategy in STRATEGIES:
            for ranks in RANKS:
                bytes_ = rank_memory(model.parameters(), ranks, strategy == 'FSDP2')
                gib = {part: size / GIB for part, size in bytes_.items()}
                rows.append(dict(model=name, strategy=strategy, ranks=ranks, **gib))
    return rows

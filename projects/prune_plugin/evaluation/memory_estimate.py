"""Estimates of training memory per rank, from the shapes of the parameters alone."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

GIB = 2**30
RANKS = (1, 2, 4, 8)
STRATEGIES = ('DDP', 'FSDP2')


def elements_per_rank(parameter: Tensor, ranks: int, sharded: bool) -> int:
    """Number of elements of a parameter on the rank that holds most of it.

    FSDP2 (``fully_shard``) shards every parameter along its first dimension into chunks of equally many
    rows, of which the last may be smaller; DDP replicates it.
    """
    if not sharded or not parameter.dim() or not parameter.numel():
        return parameter.numel()
    rows = parameter.shape[0]
    return -(-rows // ranks) * (parameter.numel() // rows)


def rank_memory(parameters: Iterable[Tensor], ranks: int, sharded: bool) -> dict[str, int]:
    """Bytes on the rank that holds most: ``weights``, ``gradients``, ``adamw`` and ``total``.

    All are counted in the parameter's dtype, as under autocast. Gradients and AdamW's two moments exist
    for parameters with ``requires_grad``. Activations, buffers and the parameters that FSDP2 gathers for
    the running block are not counted.

    Args:
        parameters: Every parameter once; meta tensors are sufficient.
        ranks: Number of ranks.
        sharded: True for FSDP2, False for DDP.
    """
    weights = trained = 0
    for parameter in parameters:
        size = elements_per_rank(parameter, ranks, sharded) * parameter.element_size()
        weights += size
        trained += size if parameter.requires_grad else 0
    sizes = dict(weights=weights, gradients=trained, adamw=2 * trained)
    return {**sizes, 'total': sum(sizes.values())}


def memory_table(models: dict[str, nn.Module]) -> list[dict[str, Any]]:
    """:func:`rank_memory` in GiB, one row for each model, strategy (DDP, FSDP2) and number of ranks."""
    rows = []
    for name, model in models.items():
        for strategy in STRATEGIES:
            for ranks in RANKS:
                bytes_ = rank_memory(model.parameters(), ranks, strategy == 'FSDP2')
                gib = {entry: size / GIB for entry, size in bytes_.items()}
                rows.append(dict(model=name, strategy=strategy, ranks=ranks, **gib))
    return rows

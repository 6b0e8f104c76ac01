"""How much each expert of a mixture adds, on calibration batches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..structure.unit_group import UnitGroup


@contextmanager
def expert_hooks(
    model: nn.Module,
    groups: Sequence[UnitGroup],
    sums: dict[str, Tensor],
    tokens: dict[str, Tensor],
) -> Iterator[None]:
    """Sum the norms of what experts add to the tokens that are routed to them: router weight times output.

    Experts are observed where one module holds their stacked weights and is called with tokens, the numbers
    of the experts of each, and their weights, as in Hugging Face's transformers.

    Source: Lasby et al., "REAP the Experts", arXiv 2510.13999.

    Args:
        model: The model.
        groups: The unit groups; other than those of experts are left out.
        sums: Added to, by group name, float64 (experts,).
        tokens: The same: numbers of tokens.
    """
    handles = []
    for group in groups:
        if group.kind != 'expert':
            continue
        parameters = dict(model.named_parameters())
        stacked = [
            c.name for c in group.cuts if c.name in parameters and parameters[c.name].dim() == 3
        ]
        holder = model.get_submodule(stacked[0].rpartition('.')[0])
        device = next(holder.parameters()).device
        for table in (sums, tokens):
            table[group.name] = torch.zeros(group.size, dtype=torch.float64, device=device)
        hook = norms_of(sums[group.name], tokens[group.name])
        handles.append(holder.register_forward_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def norms_of(sums: Tensor, tokens: Tensor) -> Callable[..., None]:
    """A forward hook for a module of stacked experts.

    Args:
        sums: Norms are added to it, by expert.
        tokens: Numbers of tokens are added to it.
    """

    @torch.no_grad()
    def hook(module: nn.Module, args: tuple, kwargs: dict, out: Any) -> None:
        values = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        chosen = [x for x in values if not x.is_floating_point() and x.dim() == 2]
        if not chosen or values[0].dim() != 2:
            return
        numbers = chosen[0]
        weights = next(
            (x for x in values[1:] if x.is_floating_point() and x.shape == numbers.shape), None
        )
        if weights is None:
            return
        for expert in numbers.unique().tolist():
            rows, places = (numbers == expert).nonzero(as_tuple=True)
            if not 0 <= expert < len(sums):
                continue

            def part(value: Any, rows: Tensor = rows, places: Tensor = places) -> Any:
                if value is numbers or value is weights:
                    return value[rows, places][:, None]
                return value[rows] if value is values[0] else value

            own = module.forward(*map(part, args), **{k: part(v) for k, v in kwargs.items()})
            sums[expert] += own.double().norm(dim=-1).sum()
            tokens[expert] += len(rows)

    return hook

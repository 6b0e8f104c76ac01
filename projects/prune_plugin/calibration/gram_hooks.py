"""Gram matrices of what layers read, gathered by hooks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..structure.unit_group import UnitGroup
from .layer_inputs import add_gram, input_rows, weight_matrix
from .mask_gradients import first_input, input_cuts
from .statistics import Statistics


def gram_layers(model: nn.Module, groups: Sequence[UnitGroup]) -> dict[str, nn.Module]:
    """The linear layers and ungrouped 2-D convolutions that read units, by the names of their weights."""
    found = {}
    for name in sorted({cut.name for group in groups for cut in input_cuts(group) if cut.dim == 1}):
        path, _, own = name.rpartition('.')
        module = model.get_submodule(path)
        plain = isinstance(module, nn.Conv2d) and module.groups == 1
        if own == 'weight' and (plain or isinstance(module, nn.Linear)):
            found[name] = module
    return found


@contextmanager
def gram_hooks(
    model: nn.Module, groups: Sequence[UnitGroup], statistics: Statistics
) -> Iterator[None]:
    """Sum, in float64, products of what the layers of :func:`gram_layers` read, and count the rows.

    Args:
        model: The model.
        groups: The unit groups.
        statistics: Its ``grams``, ``gram_sums`` and ``gram_rows`` are added to.
    """
    handles = []
    for name, module in gram_layers(model, groups).items():
        width = weight_matrix(module).shape[1]
        for table, shape in (
            (statistics.grams, (width, width)),
            (statistics.gram_sums, (width,)),
            (statistics.gram_rows, ()),
        ):
            table[name] = module.weight.new_zeros(shape, dtype=torch.float64)
        handles.append(
            module.register_forward_pre_hook(gram_hook(name, statistics), with_kwargs=True)
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def gram_hook(name: str, statistics: Statistics) -> Callable[[nn.Module, tuple, dict], None]:
    """A forward pre-hook that adds what a layer reads."""

    @torch.no_grad()
    def add(module: nn.Module, args: tuple, kwargs: dict[str, Tensor]) -> None:
        rows = input_rows(module, first_input(args, kwargs))
        add_gram(statistics.grams[name], rows)
        statistics.gram_sums[name] += rows.double().sum(0)
        statistics.gram_rows[name] += len(rows)

    return add

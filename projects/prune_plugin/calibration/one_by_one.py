"""Forward passes layer by layer with the activations of one batch in memory: passes are repeated.

The same as :mod:`.sequential`, in less memory and more time: what a layer reads isn't kept for all batches
but computed again for each batch whenever it is asked for.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

from ..common.errors import UserError
from ..common.glibc_memory import trim_heap
from .sequential import (
    Call,
    SharedInput,
    _ForwardDone,
    input_hooks,
    run_layer_by_layer,
    temporary_values,
)


class LayerInputs(Sequence[Tensor]):
    """What a layer reads in each of some batches, computed whenever it is asked for.

    Args:
        model: The model.
        name: The layer.
        calls: Each runs the model on one batch.
        values: Parameters that have other values meanwhile.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        calls: Sequence[Call],
        values: Mapping[nn.Parameter, Tensor],
    ):
        self.model, self.name, self.calls, self.values = model, name, calls, values

    def __len__(self) -> int:
        return len(self.calls)

    @overload
    def __getitem__(self, number: int) -> Tensor: ...

    @overload
    def __getitem__(self, number: slice) -> 'LayerInputs': ...

    def __getitem__(self, number: int | slice) -> 'Tensor | LayerInputs':
        if isinstance(number, slice):
            return LayerInputs(self.model, self.name, self.calls[number], self.values)
        found: list[Tensor] = []

        def stop(name: str, x: Tensor) -> None:
            found.append(x)
            raise _ForwardDone

        hooked = {self.name: self.model.get_submodule(self.name)}
        with temporary_values(self.values), input_hooks(hooked, stop), torch.no_grad():
            try:
                self.calls[number]()
            except _ForwardDone:
                pass
        if not found:
            raise UserError(
                f'{self.name} does not run for every calibration batch; name such layers in '
                'prune_cfg.exclude'
            )
        return found[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[number] for number in range(len(self)))


@torch.no_grad()
def run_one_by_one(
    model: nn.Module,
    calls: Sequence[Call],
    steps: Sequence[SharedInput],
    visit: Callable[[SharedInput, Any, Any], None],
    dense_calls: Sequence[Call] = (),
    run_later: Collection[str] = (),
) -> None:
    """:func:`run_layer_by_layer`, with one batch's activations in memory; arguments as there.

    ``visit`` is given :class:`LayerInputs`. The previous parameters of all layers are kept in memory until
    the end if there are dense calls.
    """
    dense_values: dict[nn.Parameter, Tensor] = {}
    for layers in steps:
        inputs = LayerInputs(model, layers[0], calls, {})
        dense = LayerInputs(model, layers[0], dense_calls, dict(dense_values))
        before = {
            parameter: parameter.detach().clone()
            for name in (layers if dense_calls else ())
            for parameter in model.get_submodule(name).parameters()
        }
        visit(layers, inputs, dense)
        dense_values |= before
        trim_heap()


def passes_for(data: Any) -> Callable[..., None]:
    """What runs a model layer by layer on some calibration data: in step, or one batch at a time."""
    return run_one_by_one if getattr(data, 'one_by_one', False) else run_layer_by_layer

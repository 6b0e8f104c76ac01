"""Base of the modules that run a file of another engine in the place of a model's network."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...common.model_interface import dummy_inputs_of, offers_dummy_inputs
from ..export.tracing import describe_error, tensors_of


class FileNetwork(nn.Module):
    """What a file computes, as a module without weights of its own.

    Attributes:
        structure: Of such files, in ``compare.json``.
        inputs: Names of the graph's inputs, in their order.
        params: Numbers in the file's constant tensors.
        weight_bytes: Their size.
    """

    structure = ''
    inputs: list[str]
    params: int
    weight_bytes: int

    def __init__(self) -> None:
        super().__init__()
        # Says on which device it is, and counts nothing.
        self.anchor = nn.Parameter(torch.zeros(0), requires_grad=False)

    def run(self, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs for inputs by name."""
        raise NotImplementedError

    def enter(self, model: nn.Module) -> str | None:
        """Have a model use this network; why it doesn't fit, None if it does."""
        expected = shapes_of(model)
        model.use_network(self)  # type: ignore[operator]
        try:
            found = shapes_of(model)
        except Exception as error:  # the engines' errors have no common base class
            return describe_error(error)
        return None if found == expected else f'it gives {found} where the model gives {expected}'

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """The outputs: one tensor, or a tuple of several."""
        given = {**dict(zip(self.inputs, args, strict=False)), **kwargs}
        arrays = {name: tensor.cpu().numpy() for name, tensor in given.items()}
        found = [torch.from_numpy(array) for array in self.run(arrays)]
        return found[0] if len(found) == 1 else tuple(found)

    def __deepcopy__(self, memo: dict) -> 'FileNetwork':
        """Itself: a running graph can't be copied, and nothing changes it."""
        return self


@torch.no_grad()
def shapes_of(model: nn.Module) -> list[tuple[int, ...]]:
    """Shapes of a model's outputs for its example; none where it has no example."""
    if not offers_dummy_inputs(model):
        return []
    return [tuple(tensor.shape) for tensor in tensors_of(model(**dummy_inputs_of(model, 1)))]

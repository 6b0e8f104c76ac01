"""A forward pass in which labels flow along with the values."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from ...common.errors import UserError
from .labels import Ids, Labels, Track, is_varied

#: (tracer, function, arguments, keyword arguments, output) -> None: notes tracks of the output.
Rule = Callable[['Tracer', Any, tuple, dict, Any], None]
RULES: dict[str, Rule] = {}
#: Operations of a forward pass from which on it isn't followed: loops over single elements.
MOST = 100_000


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Decorator: register what ATen's operations of these names do with labels."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


class Shadow:
    """What is known of a tensor.

    Attributes:
        tracks: Its tracks.
        weight: Whether it is a parameter or buffer, or computed from those alone.
    """

    def __init__(self, tracks: Iterable[Track] = (), weight: bool = False):
        self.tracks = [t for t in tracks if is_varied(t.ids)]
        self.weight = weight

    def along(self, dim: int) -> list[Ids]:
        """Labels along a dimension."""
        return [track.ids for track in self.tracks if track.dim == dim]


NOTHING = Shadow()


class Tracer(TorchDispatchMode):
    """Follows labels through all operations of a forward pass.

    Args:
        model: The model; each of its parameters and buffers gets labels.

    Attributes:
        labels: What was found.
        unknown: Operations without a rule that labels ran into.
        used: Names of the parameters that took part.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.labels = Labels()
        self.shadows = WeakTensorKeyDictionary()
        self.unknown: set[str] = set()
        self.suspended = self.operations = 0
        self.used: set[str] = set()
        self.names = WeakTensorKeyDictionary()
        for name, parameter in model.named_parameters():
            self.names[parameter] = name
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_floating_point():
                tracks = [
                    Track(dim, self.labels.of_tensor(name, dim, length))
                    for dim, length in enumerate(tensor.shape)
                    if length > 1
                ]
                self.shadows[tensor] = Shadow(tracks, weight=True)

    def of(self, tensor: Any) -> Shadow:
        """What is known of a tensor."""
        return self.shadows.get(tensor, NOTHING) if isinstance(tensor, Tensor) else NOTHING

    def note(self, tensor: Tensor, tracks: Iterable[Track], weight: bool = False) -> None:
        """Write down the tracks of a result."""
        shadow = Shadow(tracks, weight)
        for track in shadow.tracks:
            assert len(track.ids) == tensor.shape[track.dim], (track.dim, tensor.shape)
        if shadow.tracks or weight:
            self.shadows[tensor] = shadow
        else:
            self.shadows.pop(tensor, None)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.operations += 1
        if self.operations > MOST:
            raise UserError(f'it has more than {MOST:,} operations')
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        self.used |= {self.names[x] for x in tensors if x in self.names}
        if self.suspended:
            return out
        if not any(x in self.shadows for x in tensors):
            return out
        name = func._schema.name.removeprefix('aten::')
        known = RULES.get(name) or RULES.get(name.removesuffix('_'))
        if known is None and torch.Tag.pointwise in func.tags:
            known = RULES['pointwise']
        if known is not None:
            known(self, func, args, kwargs, out)
        else:
            self.give_up(name, tensors)
        return out

    def give_up(self, name: str, tensors: Sequence[Tensor]) -> None:
        """An operation without a rule: what flows into it can't go."""
        for tensor in tensors:
            for track in self.of(tensor).tracks:
                self.unknown.add(name)
                self.labels.pin(track.ids, f'no rule for the operation {name}')

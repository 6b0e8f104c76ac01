"""How far a forward pass comes before it fails."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Steps(TorchDispatchMode):
    """Counts the operations that run inside of it.

    Attributes:
        number: How many there were.
    """

    number = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.number += 1
        return out

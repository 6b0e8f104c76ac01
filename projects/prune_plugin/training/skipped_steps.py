"""Counts the optimizer steps in a row that a gradient scaler has skipped."""

from typing import Any

import torch
from torch import Tensor

#: A scaler that starts at 65536 and halves is below 1 after 17 skipped steps.
LIMIT = 25


class SkippedSteps:
    """Watches an optimizer that a gradient scaler steps.

    The scaler doesn't call ``step`` where a gradient isn't finite. Fused optimizers are called all the
    same and skip the step themselves; what they were told stays on the device, and is read after every
    ``LIMIT`` steps only.

    Args:
        optimizer: The optimizer.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.in_a_row = self.steps = 0
        self._called = False
        self._on_device: Tensor | None = None
        self._handle = optimizer.register_step_post_hook(self._note)

    def _note(self, optimizer: Any, args: tuple, kwargs: dict) -> None:
        self._called = True
        found_inf = getattr(optimizer, 'found_inf', None)
        if found_inf is not None:
            before = 0 if self._on_device is None else self._on_device
            self._on_device = (before + 1) * (found_inf != 0)

    def after_step(self) -> bool:
        """Count the step that the scaler was asked for; whether the last ``LIMIT`` were all skipped."""
        self.steps += 1
        self.in_a_row = 0 if self._called else self.in_a_row + 1
        self._called = False
        if self.in_a_row >= LIMIT:
            return True
        if self._on_device is None or self.steps % LIMIT:
            return False
        return bool(self._on_device >= LIMIT)

    def remove(self) -> None:
        """Watch no longer."""
        self._handle.remove()

"""A factor on the loss, so that gradients in float16 neither vanish nor overflow."""

import torch
from torch import Tensor, nn

from ..common.errors import UserError

#: 1.0 in models without float16 weights. The loss itself may be float16, of which 65504 is the largest.
FIRST = 2.0**15
LEAST = 2.0**-15


class LossScale:
    """The factor, halved whenever a gradient overflows.

    float16 has no numbers below 6e-8, where many gradients of a mean loss lie.

    Args:
        model: The model.

    Attributes:
        factor: By which the gradients must be divided.
        is_needed: Whether the model has float16 weights; elsewhere the factor is 1.

    Source: Micikevicius et al., "Mixed Precision Training", arXiv 1710.03740, section 3.2.
    """

    def __init__(self, model: nn.Module):
        self.is_needed = any(p.dtype == torch.float16 for p in model.parameters())
        self.factor = FIRST if self.is_needed else 1.0

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of the loss times the factor; it can be done again with another one."""
        if not self.is_needed:
            loss.backward()
            return
        (loss.float() * self.factor).backward(retain_graph=True)

    def halve(self) -> None:
        """Take half the factor from now on.

        Raises:
            UserError: it is so small that the gradients overflow whatever it is.
        """
        self.factor /= 2
        if self.factor < LEAST:
            raise UserError(
                'calibration: gradients overflow in float16 weights at any scale of the loss; check the '
                "checkpoint's weights, or load them as float32"
            )

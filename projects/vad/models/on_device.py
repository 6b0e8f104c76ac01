"""Getting small numbers to the device without waiting for it.

A tensor made from a list is copied to a GPU while the CPU waits, which empties the GPU's queue. So what
never changes is made once for each device, and what does is sent from pinned memory.
"""

from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

_constants: dict[Hashable, Tensor] = {}


def constant(values: tuple[Any, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Numbers that never change, on the device of ``like``; not to be changed in place.

    Args:
        values: Numbers, or tuples of numbers.
        like: Gives the device.
        dtype: Of the result; that of ``like`` if None.
    """
    dtype = dtype or like.dtype
    key = values, dtype, like.device
    if key not in _constants:
        # What inference mode makes could not be used in training afterwards.
        with torch.inference_mode(False):
            made = torch.tensor(values, dtype=dtype, device=like.device)
        if isinstance(made, FakeTensor) or torch.compiler.is_compiling():  # it lives in that graph
            return made
        _constants[key] = made
    return _constants[key]


def sent(values: np.ndarray, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Numbers of this moment, on the device of ``like``, for which the CPU doesn't wait.

    Args:
        values: The numbers.
        like: Gives the device.
        dtype: Of the result; that of ``like`` if None.
    """
    tensor = torch.as_tensor(values).to(dtype or like.dtype)
    if like.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(like.device, non_blocking=True)

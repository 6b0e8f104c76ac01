"""Floating-point precision: half floats, and TF32 on GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

HALF = (torch.float16, torch.bfloat16)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half-precision values as float32, others unchanged: sums and squares of many need the digits."""
    return tensor.float() if tensor.dtype in HALF else tensor


@contextmanager
def weights_in_float32(model: nn.Module) -> Iterator[None]:
    """Have half-precision parameters and buffers be float32 for a while, which changes no value.

    They must not be changed meanwhile.
    """
    tensors = [x for x in (*model.parameters(), *model.buffers()) if x.dtype in HALF]
    types = [x.dtype for x in tensors]
    for tensor in tensors:
        tensor.data = tensor.data.float()
    try:
        yield
    finally:
        for tensor, dtype in zip(tensors, types, strict=True):
            tensor.data = tensor.data.to(dtype)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Matrix products and convolutions of float32 in full precision, whatever the user has allowed.

    TF32 keeps 10 bits of a number's 23. That is little for the Gram matrices that a Cholesky
    factorisation follows, and for coordinates.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    new = hasattr(matmul, 'fp32_precision')  # from PyTorch 2.9; the older switches don't go with it
    settings: list[Any] = [matmul, cudnn.conv] if new else [matmul, cudnn]
    name = 'fp32_precision' if new else 'allow_tf32'
    before = [getattr(setting, name) for setting in settings]
    for setting in settings:
        setattr(setting, name, 'ieee' if new else False)
    try:
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setattr(setting, name, value)

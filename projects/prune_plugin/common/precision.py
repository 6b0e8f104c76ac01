"""Floating-point precision: half floats, and TF32 on GPUs."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

HALF = (torch.float16, torch.bfloat16)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half-precision values as float32, others unchanged: sums and squares of many need the digits."""
    return tensor.float() if tensor.dtype in HALF else tensor


def needs_half(model: nn.Module) -> bool:
    """Whether a model of transformers runs in half precision only, as FlashAttention does."""
    configs = (getattr(module, 'config', None) for module in model.modules())
    names = (str(getattr(config, '_attn_implementation', None)) for config in configs)
    return any(name.startswith(('flash', 'kernels-community/flash')) for name in names)


def scoring_precision(model: nn.Module, precision: str) -> AbstractContextManager[None]:
    """The context to score units in, by ``prune_cfg.calibration.precision``."""
    widened = precision == 'float32' and not needs_half(model)
    return weights_in_float32(model) if widened else nullcontext()


@contextmanager
def weights_in_float32(model: nn.Module) -> Iterator[None]:
    """Have float32 copies stand in for half-precision parameters and buffers for a while.

    The originals come back untouched, with what else holds them: optimizers, and DDP, which hooks into
    their gradients. Half-precision arguments of the model are widened, too.
    """
    copies: dict[int, Tensor] = {}
    originals: list[tuple[nn.Module, str, Tensor]] = []

    def widened(tensor: Tensor) -> Tensor:
        if id(tensor) not in copies:  # tied ones stay tied
            copy = tensor.detach().float()
            is_parameter = isinstance(tensor, nn.Parameter)
            copies[id(tensor)] = nn.Parameter(copy, tensor.requires_grad) if is_parameter else copy
        return copies[id(tensor)]

    handle = model.register_forward_pre_hook(widen_arguments, with_kwargs=True)
    try:
        for module in model.modules():
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None and tensor.dtype in HALF:
                    originals.append((module, name, tensor))
                    setattr(module, name, widened(tensor))
        yield
    finally:
        handle.remove()
        for module, name, tensor in originals:
            setattr(module, name, tensor)


def widen_arguments(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """A forward pre-hook: half-precision tensors, also in lists and dicts, become float32."""

    def widen(value: Any) -> Any:
        return at_least_float32(value) if isinstance(value, Tensor) else value

    return tree_map(widen, (args, kwargs))


@contextmanager
def without_tf32() -> Iterator[None]:
    """Matrix products and convolutions of float32 in full precision, whatever the user has allowed.

    TF32 keeps 10 bits of a number's 23. That is little for the Gram matrices that a Cholesky
    factorisation follows, and for coordinates. For our own arithmetic alone: a user's model may ask for
    the settings of older PyTorch, which raises within.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if not hasattr(matmul, 'fp32_precision'):  # before PyTorch 2.9
        precision, allowed = torch.get_float32_matmul_precision(), cudnn.allow_tf32
        torch.set_float32_matmul_precision('highest')
        cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
            cudnn.allow_tf32 = allowed
        return
    settings: list[Any] = [matmul, cudnn.conv, cudnn.rnn]
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = 'ieee'
    try:
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value

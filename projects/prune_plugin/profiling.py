"""FLOPs and latency of a model, measured on an example input."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .errors import UserError

#: Positional and keyword arguments of one forward call.
Example = tuple[tuple, dict[str, Any]]


def example_input(
    model: nn.Module, batch_size: int = 1, input_shape: Sequence[int] | None = None
) -> Example | None:
    """Arguments for a forward call, without touching a data set.

    Args:
        model: Asked first: ``model.dummy_inputs``, a method ``(batch_size) -> dict`` or (Hugging
            Face) a property, gives keyword arguments.
        batch_size: Samples in the batch.
        input_shape: Shape of one sample, for models without ``dummy_inputs``.

    Returns:
        The arguments, or None where nothing says what the input looks like.
    """
    device = next(model.parameters()).device
    dummy = getattr(model, 'dummy_inputs', None)
    if dummy is not None:
        kwargs = dummy(batch_size) if callable(dummy) else dummy
        return (), {name: on_device(value, device) for name, value in kwargs.items()}
    if input_shape is not None:
        return (torch.zeros(batch_size, *input_shape, device=device),), {}
    return None


def on_device(value: Any, device: torch.device) -> Any:
    """``value`` with all tensors in it on a device; dicts and lists are gone through."""
    if isinstance(value, Mapping):
        return {name: on_device(item, device) for name, item in value.items()}
    if isinstance(value, list):
        return [on_device(item, device) for item in value]
    return value.to(device) if hasattr(value, 'to') else value


def needed_example(
    model: nn.Module, input_shape: Sequence[int] | None, batch_size: int, key: str
) -> Example:
    """:func:`example_input`, or a :class:`UserError` that says what ``key`` is missing."""
    example = example_input(model, batch_size, input_shape)
    if example is None:
        raise UserError(
            f'{key} needs an example input: set prune_cfg.profile.input_shape, e.g. (3, 224, 224)'
        )
    return example


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter require a gradient: FLOP counting stumbles over views of those that do."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@torch.no_grad()
def module_flops(model: nn.Module, example: Example) -> dict[str, int]:
    """FLOPs of each module's own operations (without its children's), for one forward call.

    FLOPs are two per multiply-accumulate of matrix products and convolutions, as PyTorch's
    ``FlopCounterMode`` counts them; element-wise operations are not counted. Attention runs on the
    plain kernel meanwhile, as the counter doesn't see the fused ones on CPUs.

    Returns:
        ``{module name: FLOPs}`` for modules with any; the sum is the model's.
    """
    counter = FlopCounterMode(display=False)
    training, fast = model.training, torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    args, kwargs = example
    try:
        with sdpa_kernel(SDPBackend.MATH), frozen(model), counter:
            model(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        model.train(training)
    root = type(model).__name__
    inclusive = {
        path.removeprefix(root).removeprefix('.'): sum(counts.values())
        for path, counts in counter.get_flop_counts().items()
        if path == root or path.startswith(f'{root}.')
    }
    own = dict(inclusive)
    for name, flops in inclusive.items():
        if name:
            own[nearest_caller(name, inclusive)] -= flops
    return {name: flops for name, flops in own.items() if flops > 0}


def nearest_caller(name: str, called: Mapping[str, int]) -> str:
    """The innermost module around ``name`` that is called itself (a ``ModuleList`` never is)."""
    while name:
        name = name.rpartition('.')[0]
        if name in called:
            return name
    return name


def interleaved_latency(
    calls: Sequence[Callable[[], Any]], seconds: float = 2.0, num_threads: int = 1
) -> list[float]:
    """Median wall time of each call in milliseconds, taken in turn so that drift hits all alike.

    Args:
        calls: Functions of no arguments.
        seconds: Time to spend in all, beyond one warm-up and three rounds.
        num_threads: CPU threads to run on.

    Returns:
        One median per call.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    sync = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    times: list[list[float]] = [[] for _ in calls]
    try:
        for call in calls:
            call()
        start = time.perf_counter()
        while len(times[0]) < 3 or time.perf_counter() - start < seconds:
            for call, taken in zip(calls, times, strict=True):
                sync()
                before = time.perf_counter()
                call()
                sync()
                taken.append(time.perf_counter() - before)
    finally:
        torch.set_num_threads(threads)
    return [1e3 * statistics.median(taken) for taken in times]


def model_latency(models: Sequence[nn.Module], example: Example, **kwargs) -> list[float]:
    """:func:`interleaved_latency` of forward calls of ``models`` in evaluation mode, in ms."""
    args, named = example

    def forward(model: nn.Module) -> Callable[[], Any]:
        def call() -> Any:
            return model(*args, **named)

        return call

    modes = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        with torch.inference_mode():
            return interleaved_latency([forward(model) for model in models], **kwargs)
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)


def count_params(model: nn.Module) -> int:
    """Parameters of ``model``, tied ones counted once."""
    return sum(p.numel() for p in model.parameters())

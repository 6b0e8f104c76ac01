"""How long forward calls take, measured in turn."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from ..common.eval_mode import evaluation_mode
from .example_inputs import Example


def interleaved_latency(
    calls: Sequence[Callable[[], Any]], seconds: float = 2.0, num_threads: int = 1
) -> list[float]:
    """Median wall time of each call in milliseconds, taken in turn so that drift hits all alike.

    Args:
        calls: Functions of no arguments.
        seconds: Time to spend in all, beyond one warm-up and three rounds; slow calls get fewer.
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
        while not enough(len(times[0]), time.perf_counter() - start, seconds):
            for call, taken in zip(calls, times, strict=True):
                sync()
                before = time.perf_counter()
                call()
                sync()
                taken.append(time.perf_counter() - before)
    finally:
        torch.set_num_threads(threads)
    return [1e3 * statistics.median(taken) for taken in times]


def enough(rounds: int, spent: float, seconds: float) -> bool:
    """Whether so many rounds will do: three of them, or as many as twice the time allows."""
    return spent >= seconds and (rounds >= 3 or (rounds >= 1 and spent >= 2 * seconds))


def model_latency(models: Sequence[nn.Module], example: Example, **kwargs) -> list[float]:
    """:func:`interleaved_latency` of forward calls of ``models`` in evaluation mode, in ms."""
    args, named = example

    def forward(model: nn.Module) -> Callable[[], Any]:
        def call() -> Any:
            return model(*args, **named)

        return call

    with ExitStack() as stack, torch.inference_mode():
        for model in models:
            stack.enter_context(evaluation_mode(model, fused=True))
        return interleaved_latency([forward(model) for model in models], **kwargs)

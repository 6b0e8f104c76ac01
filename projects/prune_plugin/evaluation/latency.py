"""Wall time of forward calls, with the models under comparison interleaved."""

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
    """Median wall time of each call in milliseconds.

    The calls are interleaved, so that drift of the machine affects all of them equally. CUDA devices are
    synchronised around every call.

    Args:
        calls: Functions of no arguments.
        seconds: Time to spend on all calls together, after one warm-up call each. At least three rounds
            are measured, unless they would take more than twice this time.
        num_threads: CPU threads.

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
        while not enough_rounds(len(times[0]), time.perf_counter() - start, seconds):
            for call, durations in zip(calls, times, strict=True):
                sync()
                call_start = time.perf_counter()
                call()
                sync()
                durations.append(time.perf_counter() - call_start)
    finally:
        torch.set_num_threads(threads)
    return [1e3 * statistics.median(durations) for durations in times]


def enough_rounds(rounds: int, elapsed: float, seconds: float) -> bool:
    """Whether to stop: time is up, and there are three rounds, or one if twice the time is up."""
    return elapsed >= seconds and (rounds >= 3 or (rounds >= 1 and elapsed >= 2 * seconds))


def model_latency(
    models: Sequence[nn.Module], example: Example, seconds: float = 2.0, num_threads: int = 1
) -> list[float]:
    """:func:`interleaved_latency` of forward calls of ``models`` in evaluation mode, in ms."""
    args, kwargs = example

    def forward(model: nn.Module) -> Callable[[], Any]:
        def call() -> Any:
            return model(*args, **kwargs)

        return call

    with ExitStack() as stack, torch.inference_mode():
        for model in models:
            stack.enter_context(evaluation_mode(model, fused=True))
        return interleaved_latency([forward(model) for model in models], seconds, num_threads)

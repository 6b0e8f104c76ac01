"""Time of forward calls, with the models under comparison interleaved."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from ..common.eval_mode import evaluation_mode
from ..common.progress import Bar
from .example_inputs import Example

#: A call on a GPU is repeated so often that this many seconds are measured at once, and at most 50 times:
#: the time of a single small module would be that of launching its kernels.
BLOCK_SECONDS, MOST_REPEATS = 0.01, 50


class WallClock:
    """Times a call on the CPU."""

    warm_ups = 1

    def repeats(self, call: Callable[[], Any]) -> int:
        """How many calls in a row to time."""
        return 1

    def seconds(self, call: Callable[[], Any], repeats: int) -> float:
        """Mean seconds of ``repeats`` calls in a row."""
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - start) / repeats


class GpuClock(WallClock):
    """Times calls on a GPU by its own events, back to back.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device):
        self.device = device

    warm_ups = 3  # libraries choose their kernels in the first calls

    def repeats(self, call: Callable[[], Any]) -> int:
        """See :class:`WallClock`."""
        once = max(self.seconds(call, 1), 1e-6)
        return min(MOST_REPEATS, math.ceil(BLOCK_SECONDS / once))

    def seconds(self, call: Callable[[], Any], repeats: int) -> float:
        """See :class:`WallClock`."""
        with torch.cuda.device(self.device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            for _ in range(repeats):
                call()
            end.record()
            end.synchronize()
        return 1e-3 * start.elapsed_time(end) / repeats


def interleaved_latency(
    calls: Sequence[Callable[[], Any]],
    seconds: float = 2.0,
    num_threads: int = 1,
    device: str | torch.device = 'cpu',
    patience: float = 2.0,
) -> list[float]:
    """Median time of each call in milliseconds.

    The calls are interleaved, so that drift of the machine affects all of them equally. On CPUs it is wall
    time, on GPUs the time between two events around several calls.

    Args:
        calls: Functions of no arguments.
        seconds: Time to spend on all calls together, after some warm-up calls each. At least three rounds
            are measured, unless they would take more than ``patience`` times this.
        num_threads: CPU threads.
        device: The device that the calls run on.
        patience: See ``seconds``.

    Returns:
        One median per call.
    """
    device = torch.device(device)
    clock = GpuClock(device) if device.type == 'cuda' else WallClock()
    threads = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    times: list[list[float]] = [[] for _ in calls]
    try:
        with Bar(disable=True) as bar:
            start, task = time.perf_counter(), None
            for call in calls:
                for _ in range(clock.warm_ups):
                    call()
                if task is None:
                    rounds = rounds_needed((time.perf_counter() - start) * len(calls), seconds)
                    task = bar.add_task('timing', total=rounds + 2)  # before, and FLOPs after it
                bar.advance(task, 1 / len(calls))
            repeats = [clock.repeats(call) for call in calls]
            start = time.perf_counter()
            while not enough_rounds(len(times[0]), time.perf_counter() - start, seconds, patience):
                for call, count, durations in zip(calls, repeats, times, strict=True):
                    durations.append(clock.seconds(call, count))
                    bar.advance(task, 1 / len(calls))
    finally:
        torch.set_num_threads(threads)
    return [1e3 * statistics.median(durations) for durations in times]


def enough_rounds(rounds: int, elapsed: float, seconds: float, patience: float = 2.0) -> bool:
    """Whether to stop: time is up, and there are three rounds, or one if ``patience`` times it is up."""
    return elapsed >= seconds and (rounds >= 3 or (rounds >= 1 and elapsed >= patience * seconds))


def rounds_needed(one: float, seconds: float) -> int:
    """How many rounds :func:`enough_rounds` will ask for, where one takes ``one`` seconds."""
    if 3 * one >= 2 * seconds:
        return max(math.ceil(2 * seconds / one), 1)
    return max(math.ceil(seconds / one), 3)


def model_latency(
    models: Sequence[nn.Module],
    example: Example,
    seconds: float = 2.0,
    num_threads: int = 1,
    patience: float = 2.0,
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
        device = next(p.device for model in models for p in model.parameters())
        calls = [forward(model) for model in models]
        return interleaved_latency(calls, seconds, num_threads, device, patience)

"""Measuring the wall time of the steps of a run, which its progress shows."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from .progress import step as shown_step


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Add the wall time spent in the body to ``seconds[step]``."""
    start = time.perf_counter()
    try:
        with shown_step(step):
            yield
    finally:
        seconds[step] = seconds.get(step, 0.0) + time.perf_counter() - start

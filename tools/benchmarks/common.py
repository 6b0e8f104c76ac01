"""What the benchmarks share: alternating runs, and results as JSON."""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: Where the results lie that the documentation quotes.
RESULTS = ROOT / 'docs' / 'benchmarks'


def alternate(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, taken in turn after one warm-up, so that drift hits all alike."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(seconds: list[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    return dict(min=min(seconds), median=statistics.median(seconds), max=max(seconds))


def write(name: str, result: dict[str, Any]) -> Path:
    """Write a result with its surroundings to ``docs/benchmarks/<name>.json``."""
    import torch  # slow, and --help needs none

    RESULTS.mkdir(parents=True, exist_ok=True)
    surroundings = dict(
        torch=torch.__version__,
        python=platform.python_version(),
        machine=platform.machine(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        command=f'python tools/benchmarks/{Path(sys.argv[0]).name}',
    )
    path = RESULTS / f'{name}.json'
    path.write_text(json.dumps({**result, 'environment': surroundings}, indent=2) + '\n')
    return path


def save(name: str, result: dict[str, Any]) -> Path:
    """Write a result as :func:`write` does, and show it."""
    path = write(name, result)
    print(json.dumps(result, indent=2))
    print(f'written to {path.relative_to(ROOT)}')
    return path

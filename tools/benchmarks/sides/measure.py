"""Measuring a method on a task: equal parameters, time, memory, quality; and all models' latency."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from projects.prune_plugin.evaluation.flops import module_flops
from projects.prune_plugin.evaluation.latency import model_latency
from projects.prune_plugin.evaluation.profiling import count_params

from .methods import METHODS, first_share, is_peer, prepared

#: How far from the parameters asked a model may be, as a fraction of those.
TOLERANCE = 0.005
STEPS = 12


def bisect(left: Callable[[float], int], wanted: int, start: float) -> tuple[float, int]:
    """The share to remove that leaves as many parameters as wanted, and how many it leaves.

    Args:
        left: Parameters left after removing a share.
        wanted: How many are to be left.
        start: The first share to try.

    Returns:
        The first share within ``TOLERANCE``, else the nearest of those that were tried.
    """
    low, high, share = 0.0, 1.0, start
    tried: list[tuple[float, int]] = []
    for _ in range(STEPS):
        params = left(share)
        tried.append((share, params))
        if near(params, wanted):
            break
        low, high = (share, high) if params > wanted else (low, share)
        share = (low + high) / 2
    return min(tried, key=lambda found: abs(found[1] - wanted))


def near(params: int, wanted: int) -> bool:
    """Whether two numbers of parameters count as equal."""
    return abs(params - wanted) <= TOLERANCE * wanted


def match(
    cut: Callable[[float, float], nn.Module],
    runs: Callable[[nn.Module], Any],
    wanted: int,
    start: float,
    head_shares: Sequence[float | None],
) -> tuple[float, float, int]:
    """The shares of channels and of heads that leave as many parameters as wanted.

    torch-pruning may leave a layer without any head, and such a model doesn't run; then there is a
    smaller share of heads to try.

    Args:
        cut: Gives a model with these shares removed.
        runs: Raises where a model doesn't run.
        wanted: How many parameters are to be left.
        start: The first share of channels to try.
        head_shares: Shares of heads to try, in order; None: the same as of channels.

    Returns:
        Share of channels, share of heads, parameters left, of the first that is equal and runs, else
        the nearest that runs.

    Raises:
        Exception: whatever ``runs`` raised, if none runs.
    """
    found, failure = [], None
    for fixed in head_shares:

        def both(share: float, fixed: float | None = fixed) -> tuple[float, float]:
            return share, share if fixed is None else fixed

        share, params = bisect(lambda share: count_params(cut(*both(share))), wanted, start)  # noqa: B023
        try:
            runs(cut(*both(share)))
        except Exception as error:  # another's cut: anything may be wrong with its shapes
            failure = error
            continue
        found.append((*both(share), params))
        if near(params, wanted):
            return found[-1]
    if not found:
        raise failure
    return min(found, key=lambda one: abs(one[2] - wanted))


@torch.inference_mode()
def run(model: nn.Module, task: Any) -> None:
    """One forward pass."""
    args, kwargs = task.example(1)
    model(*args, **kwargs)


def measure_seed(
    task: Any, method: str, seed: int, watch: Callable[[Callable], dict], file: Path | None
) -> dict[str, Any]:
    """Prune the dense model of a seed, and see what it is worth.

    Args:
        task: The model.
        method: A key of ``METHODS``.
        seed: Of everything that is random.
        watch: Runs a function and tells its seconds, peak memory and value.
        file: Where the pruned model goes.
    """
    dense = task.dense(seed)
    wanted = round((1 - task.ratio) * count_params(dense))

    ready = prepared(task, deepcopy(dense), method, seed)

    def cut(share: float, heads: float, model: nn.Module | None = None) -> nn.Module:
        return METHODS[method](task, model or deepcopy(ready), share, heads, seed)

    start = first_share(method, task.ratio)
    head_shares = task.head_shares if is_peer(method) else (None,)
    first = cut(start, start)  # also the warm-up
    if len(head_shares) == 1:  # nothing to vary that would mend a model that doesn't run
        run(first, task)
    share, heads, params = match(cut, lambda model: run(model, task), wanted, start, head_shares)
    watched = []
    for _ in range(task.repeats):
        model = deepcopy(dense)
        watched.append(watch(lambda model=model: cut(share, heads, model)))
    model = watched[-1].pop('value').eval()
    run(model, task)
    if file is not None:
        torch.save(model, file)
    found = dict(
        seed=seed,
        params=params,
        wanted=wanted,
        matched=near(params, wanted),
        share=share,
        heads=heads,
        seconds=median(w['seconds'] for w in watched),
        added_mb=max(w['peak_mb'] - w['before_mb'] for w in watched),
        peak_mb=max(w['peak_mb'] for w in watched),
        flops=sum(module_flops(model, task.example(1)).values()),
        pruned=task.quality(model),
    )
    if task.recover:
        found['recovered'] = task.quality(task.recover(model, seed))
    return found


def measure(task: Any, method: str, watch: Callable[[Callable], dict], file: Path) -> dict:
    """All seeds of a method; of torch-pruning also the words with which it fails."""
    runs = []
    for seed in task.seeds:
        first = file if seed == task.seeds[0] else None
        try:
            runs.append(measure_seed(task, method, seed, watch, first))
        except Exception as error:  # whatever tracing an unknown model or running a cut one raises
            if not is_peer(method):
                raise
            return dict(error=f'{type(error).__name__}: {str(error).strip().splitlines()[0]}')
    return dict(runs=runs)


def measure_dense(task: Any) -> dict[str, Any]:
    """What the task is, and parameters, FLOPs and quality of its models before pruning."""
    models = {seed: task.dense(seed) for seed in task.seeds}
    first = models[task.seeds[0]]
    keys = ('ratio', 'seeds', 'methods', 'samples', 'repeats', 'dense_steps', 'tune_steps')
    return dict(
        settings={key: getattr(task, key) for key in keys if hasattr(task, key)},
        dense=dict(
            params=count_params(first),
            flops=sum(module_flops(first, task.example(1)).values()),
            runs=[dict(seed=seed, pruned=task.quality(model)) for seed, model in models.items()],
        ),
    )


def latencies(task: Any, files: dict[str, Path]) -> dict[str, float]:
    """Milliseconds of the dense model and of every saved one, in turn on one thread; medians."""
    models = dict(dense=task.dense(task.seeds[0]))
    for method, file in files.items():
        # A whole module, which another process of this very run has written into a folder of its own.
        models[method] = torch.load(file, weights_only=False)
    times = model_latency(list(models.values()), task.example(), seconds=task.latency_seconds)
    return dict(zip(models, times, strict=True))

"""Forward passes of many batches that halt together at chosen layers.

Each batch runs through the whole model in a coroutine of its own (a greenlet). Where a layer is about
to run, its batch halts; when all batches have come there, the layer's inputs are seen together, the
layer may be changed, and all go on with what it has become. One forward pass over the data is enough
to change every layer knowing what the layers before it have become, and nothing is known of the model
but that it calls its layers in the same order for every batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .errors import UserError

#: Runs the model on one batch.
Call = Callable[[], Any]
#: Layers that read the very same input.
Station = tuple[str, ...]


class _Over(Exception):
    """Ends a forward pass whose rest is of no interest."""


@contextmanager
def halting(
    modules: Mapping[str, nn.Module], halt: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Call ``halt(name, input)`` before each of the modules runs."""
    handles = []
    for name, module in modules.items():

        def before(module: nn.Module, args: tuple, name: str = name) -> None:
            halt(name, args[0])

        handles.append(module.register_forward_pre_hook(before))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def stations(model: nn.Module, names: Sequence[str], call: Call) -> list[Station]:
    """The layers in the order in which they run, those of one input together.

    Args:
        model: The model.
        names: Its layers of interest.
        call: Runs it on a small batch.

    Raises:
        UserError: a layer doesn't run, so that nothing could be known of its inputs.
    """
    found: list[list[str]] = []
    seen: set[str] = set()
    last: list[Tensor | None] = [None]

    def halt(name: str, x: Tensor) -> None:
        if name in seen:
            return
        seen.add(name)
        if last[0] is x:
            found[-1].append(name)
        else:
            found.append([name])
        last[0] = x
        if len(seen) == len(names):
            raise _Over

    with halting({name: model.get_submodule(name) for name in names}, halt):
        try:
            call()
        except _Over:
            pass
    silent = [name for name in names if name not in seen]
    if silent:
        raise UserError(
            f'{silent[0]} does not run in the forward pass of the calibration data, so that its '
            f'inputs are unknown; name it in prune_cfg.exclude'
        )
    return [tuple(names) for names in found]


@torch.no_grad()
def lockstep(
    model: nn.Module,
    calls: Sequence[Call],
    stops: Sequence[Station],
    visit: Callable[[Station, list[Tensor]], None],
) -> None:
    """Run all calls side by side, and ``visit`` every station once with the inputs of all.

    What runs after the last station is left out. Random numbers and other state of the thread (such
    as autocast) are shared by all calls: a context manager must not be open inside the model where
    it halts.

    Args:
        model: The model, in evaluation mode.
        calls: Each runs the model on one batch.
        stops: From :func:`stations`.
        visit: Takes a station and the inputs of its layers, one per call; may change the layers.

    Raises:
        UserError: the calls come to the stations in different orders.
    """
    from greenlet import getcurrent, greenlet

    main, done = getcurrent(), set()

    def halt(name: str, x: Tensor) -> None:
        if name not in done:
            main.switch((name, x))

    def run(call: Call) -> None:
        try:
            call()
        except _Over:
            pass

    station_of = {station[0]: station for station in stops}
    with halting({name: model.get_submodule(name) for name in station_of}, halt):
        runs = [greenlet(run) for _ in calls]
        arrived = [one.switch(call) for one, call in zip(runs, calls, strict=True)]
        while len(done) < len(stops):
            where = {None if at is None else at[0] for at in arrived}
            if len(where) > 1 or None in where:
                missing = next(name for name in station_of if name not in done)
                raise UserError(
                    f'{missing} is not called in the same order for every calibration batch; name '
                    'such layers in prune_cfg.exclude'
                )
            name = where.pop()
            inputs = [x for _, x in arrived]
            arrived = []
            visit(station_of[name], inputs)
            del inputs
            done.add(name)
            if len(done) < len(stops):
                arrived = [one.switch() for one in runs]
        for one in runs:
            if not one.dead:
                one.throw(_Over)

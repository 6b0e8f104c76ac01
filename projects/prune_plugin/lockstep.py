"""Forward passes of many batches that halt together at chosen layers.

Each batch runs through the whole model in a coroutine of its own (a greenlet). Where a layer is about
to run, its batch halts; when all batches have come there, the layer's inputs are seen together, the
layer may be changed, and all go on with what it has become. One forward pass over the data is enough
to change every layer knowing what the layers before it have become, and nothing is known of the model
but that it calls its layers in the same order for every batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import torch
from torch import Tensor, nn

from .errors import UserError
from .layer_inputs import reading

#: Runs the model on one batch.
Call = Callable[[], Any]
#: Layers that read the very same rows of inputs.
Station = tuple[str, ...]


class _Over(BaseException):
    """Ends a forward pass whose rest is of no interest; no ``except Exception`` stops it."""


@contextmanager
def halting(
    modules: Mapping[str, nn.Module], halt: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Call ``halt(name, input)`` before each of the modules runs."""
    handles = []
    for name, module in modules.items():

        def before(module: nn.Module, args: tuple, kwargs: dict, name: str = name) -> None:
            halt(name, args[0] if args else kwargs['input'])

        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def set_aside(device: str) -> Iterator[None]:
    """Leave the gradient mode, autocast and random numbers of a halted pass until it goes on.

    Args:
        device: Type of the device that the pass runs on.
    """
    drawn = torch.get_rng_state()
    with torch.no_grad(), torch.autocast(device, enabled=False):
        yield
    torch.set_rng_state(drawn)


@torch.no_grad()
def stations(model: nn.Module, names: Sequence[str], call: Call) -> list[Station]:
    """The layers in the order in which they first run, neighbours that read the same rows together.

    Args:
        model: The model.
        names: Its layers of interest.
        call: Runs it on a small batch.

    Raises:
        UserError: a layer doesn't run, so that nothing could be known of its inputs.
    """
    found: list[list[str]] = []
    seen: set[str] = set()
    last: tuple[Any, ...] = (None,)

    def halt(name: str, x: Tensor) -> None:
        nonlocal last
        if name in seen:
            return
        seen.add(name)
        # The version tells of changes in place since.
        now = x, x._version, reading(model.get_submodule(name))
        if last[0] is x and last[1:] == now[1:]:
            found[-1].append(name)
        else:
            found.append([name])
        last = now
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

    A layer that runs several times in a call is visited before the first time, and all its runs take
    what it has become. What comes after the last station isn't run. Each call has its own
    gradient mode, autocast, context variables and PyTorch's random numbers on the CPU; other state of
    the thread is shared: what changes it must not be open inside the model where that halts.

    Args:
        model: The model, in evaluation mode.
        calls: Each runs the model on one batch.
        stops: From :func:`stations`.
        visit: Takes a station and the inputs of its layers, one per call; may change the layers.

    Raises:
        UserError: the calls don't come to the stations in their order, or greenlet isn't installed.
    """
    try:
        from greenlet import getcurrent, greenlet
    except ImportError as error:
        raise UserError(
            'prune_cfg.sparsifier reads inputs of layers, which needs the package greenlet; '
            'install it, or use Magnitude'
        ) from error

    main, done = getcurrent(), set()

    def halt(name: str, x: Tensor) -> None:
        if name not in done:
            with set_aside(x.device.type):
                main.switch((name, x))

    def run(call: Call) -> None:
        try:
            call()
        except _Over:
            pass

    runs = [greenlet(run) for _ in calls]
    for one in runs:
        one.gr_context = copy_context()
    firsts = {station[0]: model.get_submodule(station[0]) for station in stops}
    try:
        with halting(firsts, halt):
            for number, station in enumerate(stops):
                if number == 0:
                    arrived = [one.switch(call) for one, call in zip(runs, calls, strict=True)]
                else:
                    arrived = [one.switch() for one in runs]
                if any(at is None or at[0] != station[0] for at in arrived):
                    raise UserError(
                        f'{station[0]} is not called in the same order for every calibration batch; '
                        'name such layers in prune_cfg.exclude'
                    )
                inputs = [x for _, x in arrived]
                arrived.clear()
                visit(station, inputs)
                inputs.clear()
                torch.clear_autocast_cache()  # may hold the layers as they were
                done.add(station[0])
    finally:
        for one in runs:
            if one:  # halted inside the model
                one.throw(_Over)

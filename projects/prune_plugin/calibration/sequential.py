"""Forward passes of many batches that halt together at chosen layers.

Each batch runs through the whole model in a coroutine of its own (a greenlet). Where a layer is about
to run, its batch halts; when all batches have come there, the layer's inputs are seen together, the
layer may be changed, and all go on with what it has become. One forward pass over the data is enough
to change every layer knowing what the layers before it have become, and nothing is known of the model
but that it calls its layers in the same order for every batch. Other batches may run beside them through
the layers as they were.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import torch
from torch import Tensor, nn

from ..common.errors import UserError
from ..common.glibc_memory import trim_heap
from .layer_inputs import reading

#: Runs the model on one batch.
Call = Callable[[], Any]
#: Layers that read the very same rows of inputs.
SharedInput = tuple[str, ...]


class _ForwardDone(BaseException):
    """Ends a forward pass whose rest is of no interest; no ``except Exception`` stops it."""


@contextmanager
def pausing_before(
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
def suspended(device: str) -> Iterator[None]:
    """Leave the gradient mode, autocast and random numbers of a halted pass until it goes on.

    Args:
        device: Type of the device that the pass runs on.
    """
    drawn = torch.get_rng_state()
    with torch.no_grad(), torch.autocast(device, enabled=False):
        yield
    torch.set_rng_state(drawn)


@torch.no_grad()
def group_by_input(model: nn.Module, names: Sequence[str], call: Call) -> list[SharedInput]:
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
            raise _ForwardDone

    with pausing_before({name: model.get_submodule(name) for name in names}, halt):
        try:
            call()
        except _ForwardDone:
            pass
    silent = [name for name in names if name not in seen]
    if silent:
        raise UserError(
            f'{silent[0]} does not run in the forward pass of the calibration data, so that its '
            f'inputs are unknown; name it in prune_cfg.exclude'
        )
    return [tuple(names) for names in found]


@torch.no_grad()
def observe(
    model: nn.Module,
    calls: Sequence[Call],
    stops: Sequence[SharedInput],
    see: Callable[[str, Tensor], None],
) -> None:
    """Run the calls one after the other, and look at what the layers read.

    What comes after the last station isn't run.

    Args:
        model: The model, in evaluation mode.
        calls: Each runs the model on one batch.
        stops: From :func:`group_by_input`.
        see: Takes the name of a station's first layer and an input, every time that it runs.
    """

    def halt(name: str, x: Tensor) -> None:
        see(name, x)
        if name == stops[-1][0]:
            raise _ForwardDone

    with pausing_before({name: model.get_submodule(name) for name, *_ in stops}, halt):
        for call in calls:
            try:
                call()
            except _ForwardDone:
                pass


@torch.no_grad()
def layers_that_run_later(model: nn.Module, stops: Sequence[SharedInput], call: Call) -> set[str]:
    """The layers that run once more when a later station has been reached.

    Args:
        model: The model.
        stops: From :func:`group_by_input`.
        call: Runs it on a small batch.
    """
    numbers = {name: number for number, station in enumerate(stops) for name in station}
    found, reached = set(), 0

    def halt(name: str, x: Tensor) -> None:
        nonlocal reached
        if numbers[name] < reached:
            found.add(name)
        reached = max(reached, numbers[name])

    with pausing_before({name: model.get_submodule(name) for name in numbers}, halt):
        call()
    return found


def advance(runs: Sequence[Any], station: SharedInput) -> list[Tensor]:
    """Let all runs come to the station, one after the other; the inputs that they halt with.

    Raises:
        UserError: one halts elsewhere, or has ended.
    """
    inputs = []
    for run in runs:
        arrived = run.switch()
        if arrived is None or arrived[0] != station[0]:
            raise UserError(
                f'{station[0]} is not called in the same order for every calibration batch; '
                'name such layers in prune_cfg.exclude'
            )
        inputs.append(arrived[1])
    return inputs


@contextmanager
def holding(values: Mapping[nn.Parameter, Tensor]) -> Iterator[None]:
    """Let parameters have other values for a while, without a copy."""

    def install(values: Mapping[nn.Parameter, Tensor]) -> None:
        for parameter, value in values.items():
            parameter.data = value
        torch.clear_autocast_cache()  # may hold the parameters as they were

    own = {parameter: parameter.data for parameter in values}
    install(values)
    try:
        yield
    finally:
        install(own)


@torch.no_grad()
def run_layer_by_layer(
    model: nn.Module,
    calls: Sequence[Call],
    stops: Sequence[SharedInput],
    visit: Callable[[SharedInput, list[Tensor], list[Tensor]], None],
    dense_calls: Sequence[Call] = (),
    run_later: Collection[str] = (),
) -> None:
    """Run all calls side by side, and ``visit`` every station once with the inputs of all.

    A layer that runs several times in a call is visited before the first time, and all its runs take
    what it has become. What comes after the last station isn't run. Each call has its own
    gradient mode, autocast, context variables and PyTorch's random numbers on the CPU; other state of
    the thread is shared: what changes it must not be open inside the model where that halts.

    Args:
        model: The model, in evaluation mode.
        calls: Each runs the model on one batch.
        stops: From :func:`group_by_input`.
        visit: Takes a station, the inputs of its layers, one per call, and those of the dense calls;
            may change the layers.
        dense_calls: Run the layers with the parameters that they had before they were visited.
        run_later: From :func:`layers_that_run_later`; of these, and of one station, such parameters are
            held. Not read without dense calls.

    Raises:
        UserError: the calls don't come to the stations in their order, another layer runs later in a
            dense call, or greenlet isn't installed.
    """
    try:
        from greenlet import getcurrent, greenlet
    except ImportError as error:
        raise UserError(
            'prune_cfg.sparsifier reads inputs of layers, which needs the package greenlet; '
            'install it, or use Magnitude'
        ) from error

    main = getcurrent()
    done: set[str] = set()

    def halt(name: str, x: Tensor) -> None:
        if name not in done:
            with suspended(x.device.type):
                main.switch((name, x))
        elif getcurrent() in dense_runs and name not in station and name not in run_later:
            raise UserError(
                f'{name} runs again in some calibration batches only, so that its dense inputs cannot '
                'be had; set dense_targets to 0, or name it in prune_cfg.exclude'
            )

    def start(call: Call) -> Any:
        def run() -> None:
            try:
                call()
            except _ForwardDone:
                pass

        one = greenlet(run)
        one.gr_context = copy_context()
        return one

    runs, dense_runs = [start(call) for call in calls], [start(call) for call in dense_calls]
    halts = {name: model.get_submodule(name) for station in stops for name in station[:1]}
    if dense_runs:
        halts = {name: model.get_submodule(name) for station in stops for name in station}
    before: dict[str, dict[nn.Parameter, Tensor]] = {}
    station: SharedInput = ()
    try:
        with pausing_before(halts, halt):
            for following in stops:
                with holding({p: v for values in before.values() for p, v in values.items()}):
                    dense_inputs = advance(dense_runs, following)
                inputs = advance(runs, following)
                station = following
                before = {name: before[name] for name in before if name in run_later}
                for name in station if dense_runs else ():
                    parameters = model.get_submodule(name).parameters()
                    before[name] = {p: p.detach().clone() for p in parameters}
                visit(station, inputs, dense_inputs)
                done.update(station)
                inputs.clear()
                dense_inputs.clear()
                trim_heap()
    finally:
        for one in (*runs, *dense_runs):
            if one:  # halted inside the model
                one.throw(_ForwardDone)

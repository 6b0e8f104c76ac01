"""Forward passes over many batches that run layer by layer, in step with each other.

Each batch runs through the whole model in its own coroutine (a greenlet). Before a chosen layer runs, the
batch pauses; when all batches have reached that layer, the layer is visited with the inputs of all
batches and may be changed, and all batches continue through the changed layer. So one forward pass over
the data suffices to change every layer given the changed layers before it. The only assumption about the
model is that it calls its layers in the same order for every batch. Further batches may run beside them
through the unchanged layers.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ..common.errors import UserError
from ..common.glibc_memory import trim_heap
from ..common.random_state import set_torch_states, torch_states
from .layer_inputs import row_layout

#: Runs the model on one batch.
Call = Callable[[], Any]
#: Names of the layers that read the same input rows: visited together, in one step.
SharedInput = tuple[str, ...]


class _ForwardDone(BaseException):
    """Ends a forward pass early; a BaseException, so that no ``except Exception`` catches it."""


@contextmanager
def argument_hooks(
    modules: Mapping[str, nn.Module], hook: Callable[[str, tuple, dict], None]
) -> Iterator[None]:
    """Call ``hook(name, args, kwargs)`` every time before one of the modules runs."""
    handles = []
    for name, module in modules.items():

        def pre_hook(module: nn.Module, args: tuple, kwargs: dict, name: str = name) -> None:
            hook(name, args, kwargs)

        handles.append(module.register_forward_pre_hook(pre_hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def input_hooks(
    modules: Mapping[str, nn.Module], hook: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Call ``hook(name, input)`` every time before one of the modules runs."""
    with argument_hooks(modules, lambda name, args, kwargs: hook(name, layer_input(args, kwargs))):
        yield


def layer_input(args: tuple, kwargs: Mapping[str, Any]) -> Any:
    """The input among the arguments of a layer that has one."""
    return args[0] if args else kwargs['input']


@contextmanager
def thread_state_restored(device: str) -> Iterator[None]:
    """Around a pause: run others without gradients and autocast, then restore the random number state.

    Args:
        device: Type of the device that the pass runs on.
    """
    states = torch_states()
    with torch.no_grad(), torch.autocast(device, enabled=False):
        yield
    set_torch_states(states)


@torch.no_grad()
def group_by_input(model: nn.Module, names: Sequence[str], call: Call) -> list[SharedInput]:
    """The layers in the order of their first calls; consecutive ones with the same input together.

    Args:
        model: The model.
        names: Names of the layers.
        call: Runs the model on a small batch.

    Raises:
        UserError: a layer doesn't run, so its inputs are unknown.
    """
    steps: list[list[str]] = []
    called: set[str] = set()
    last: tuple[Any, ...] = (None,)

    def record(name: str, x: Tensor) -> None:
        nonlocal last
        if name in called:
            return
        called.add(name)
        # The version counter detects in-place changes between two calls.
        current = x, x._version, row_layout(model.get_submodule(name))
        if last[0] is x and last[1:] == current[1:]:
            steps[-1].append(name)
        else:
            steps.append([name])
        last = current
        if len(called) == len(names):
            raise _ForwardDone

    with input_hooks({name: model.get_submodule(name) for name in names}, record):
        try:
            call()
        except _ForwardDone:
            pass
    not_called = [name for name in names if name not in called]
    if not_called:
        raise UserError(
            f'{not_called[0]} does not run in the forward pass of the calibration data, so its '
            f'inputs are unknown; name it in prune_cfg.exclude'
        )
    return [tuple(layers) for layers in steps]


@torch.no_grad()
def observe(
    model: nn.Module,
    calls: Sequence[Call],
    steps: Sequence[SharedInput],
    observer: Callable[[str, Tensor], None],
) -> None:
    """Run the calls one after the other and pass the inputs of layers to ``observer``.

    Each pass ends at the last step's layers.

    Args:
        model: The model, in evaluation mode.
        calls: Each runs the model on one batch.
        steps: From :func:`group_by_input`.
        observer: Called with the name of a step's first layer and its input, every time that it runs.
    """

    def hook(name: str, x: Tensor) -> None:
        observer(name, x)
        if name == steps[-1][0]:
            raise _ForwardDone

    with input_hooks({name: model.get_submodule(name) for name, *_ in steps}, hook):
        for call in calls:
            try:
                call()
            except _ForwardDone:
                pass


@torch.no_grad()
def layers_that_run_later(model: nn.Module, steps: Sequence[SharedInput], call: Call) -> set[str]:
    """Names of the layers that run again after layers of a later step have run.

    Args:
        model: The model.
        steps: From :func:`group_by_input`.
        call: Runs the model on a small batch.
    """
    numbers = {name: number for number, layers in enumerate(steps) for name in layers}
    run_later, reached = set(), 0

    def hook(name: str, args: tuple, kwargs: dict) -> None:
        nonlocal reached
        if numbers[name] < reached:
            run_later.add(name)
        reached = max(reached, numbers[name])

    with argument_hooks({name: model.get_submodule(name) for name in numbers}, hook):
        call()
    return run_later


def advance(runs: Sequence[Any], layers: SharedInput) -> list[Any]:
    """Continue all runs, one after the other, until each pauses at ``layers``.

    Returns:
        What these layers are given in each run.

    Raises:
        UserError: a run pauses at another layer, or has ended.
    """
    inputs = []
    for run in runs:
        paused_at = run.switch()
        if paused_at is None or paused_at[0] != layers[0]:
            raise UserError(
                f'{layers[0]} is not called in the same order for every calibration batch; '
                'name such layers in prune_cfg.exclude'
            )
        inputs.append(paused_at[1])
    return inputs


@contextmanager
def temporary_values(values: Mapping[nn.Parameter, Tensor]) -> Iterator[None]:
    """Give parameters other values for a while, without a copy."""

    def install(values: Mapping[nn.Parameter, Tensor]) -> None:
        for parameter, value in values.items():
            parameter.data = value
        torch.clear_autocast_cache()  # it may hold casts of the previous values

    originals = {parameter: parameter.data for parameter in values}
    install(values)
    try:
        yield
    finally:
        install(originals)


@torch.no_grad()
def run_layer_by_layer(
    model: nn.Module,
    calls: Sequence[Call],
    steps: Sequence[SharedInput],
    visit: Callable[[SharedInput, list[Any], list[Any]], None],
    dense_calls: Sequence[Call] = (),
    run_later: Collection[str] = (),
    arguments: bool = False,
    dense_parameters: Mapping[nn.Parameter, Tensor] = MappingProxyType({}),
) -> None:
    """Run all calls in step, and ``visit`` the layers of every step once with their inputs in all calls.

    A layer that runs several times in a call is visited before its first run; all its runs use the
    changed layer. Each pass ends at the last step's layers. Each call has its own gradient mode, autocast,
    context variables and random numbers of PyTorch. Other thread-local state is shared: a context
    manager that changes it must not be open inside the model where a call pauses.

    Args:
        model: The model, in evaluation mode.
        calls: Each runs the model on one batch.
        steps: From :func:`group_by_input`.
        visit: Called with a step's layers, their input in each call and in each dense call; may change
            the layers.
        dense_calls: These run the layers with the parameters from before their visit.
        run_later: From :func:`layers_that_run_later`: the previous parameters of these layers are kept in
            memory until the end, those of all others for one step. Ignored without dense calls.
        arguments: Pass ``(args, kwargs)`` of a step's module to ``visit`` instead of a layer's input.
        dense_parameters: Values of parameters in the dense calls that differ from those before the visit.

    Raises:
        UserError: the calls don't reach the layers in the order of the steps, a dense call runs a layer
            again that isn't in ``run_later``, or greenlet isn't installed.
    """
    try:
        from greenlet import getcurrent, greenlet
    except ImportError as error:
        raise UserError(
            'prune_cfg.sparsifier reads inputs of layers, which needs the package greenlet; '
            'install it, or use Magnitude'
        ) from error

    main = getcurrent()
    device = next(model.parameters()).device.type
    visited: set[str] = set()

    def pause(name: str, args: tuple, kwargs: dict) -> None:
        if name not in visited:
            given = (args, kwargs) if arguments else layer_input(args, kwargs)
            with thread_state_restored(device):
                main.switch((name, given))
        elif getcurrent() in dense_runs and name not in current and name not in run_later:
            raise UserError(
                f'{name} runs again in some calibration batches only, so its inputs in the dense model '
                'are not available; set dense_targets to 0, or name it in prune_cfg.exclude'
            )

    def start(call: Call) -> Any:
        def run() -> None:
            try:
                call()
            except _ForwardDone:
                pass

        coroutine = greenlet(run)
        coroutine.gr_context = copy_context()
        return coroutine

    runs, dense_runs = [start(call) for call in calls], [start(call) for call in dense_calls]
    hooked = {name: model.get_submodule(name) for layers in steps for name in layers[:1]}
    if dense_runs:
        hooked = {name: model.get_submodule(name) for layers in steps for name in layers}
    dense_values: dict[str, dict[nn.Parameter, Tensor]] = {}
    current: SharedInput = ()
    try:
        with argument_hooks(hooked, pause):
            for layers in steps:
                with temporary_values(
                    {p: v for values in dense_values.values() for p, v in values.items()}
                ):
                    dense_inputs = advance(dense_runs, layers)
                inputs = advance(runs, layers)
                current = layers
                dense_values = {n: values for n, values in dense_values.items() if n in run_later}
                for name in layers if dense_runs else ():
                    parameters = model.get_submodule(name).parameters()
                    dense_values[name] = {
                        p: dense_parameters[p] if p in dense_parameters else p.detach().clone()
                        for p in parameters
                    }
                visit(layers, inputs, dense_inputs)
                visited.update(layers)
                inputs.clear()
                dense_inputs.clear()
                trim_heap()
    finally:
        for run in (*runs, *dense_runs):
            if run:  # paused inside the model
                run.throw(_ForwardDone)

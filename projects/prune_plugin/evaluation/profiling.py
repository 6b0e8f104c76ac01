"""FLOPs and latency of a model, measured on an example input."""

import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.logging import print_log
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..calibration.collect import evaluation_mode
from ..common.errors import UserError, first_line
from ..common.eval_mode import in_eval_mode
from ..common.version import __version__
from ..training.settings import ProfileSettings
from .example_inputs import needed_samples

#: Positional and keyword arguments of one forward call.
Example = tuple[tuple, dict[str, Any]]


def example_input(
    model: nn.Module, batch_size: int | None = 1, input_shape: Sequence[int] | None = None
) -> Example | None:
    """Arguments for a forward call, without touching a data set.

    Args:
        model: Asked first: ``model.dummy_inputs``, a method ``(batch_size) -> dict`` or (Hugging
            Face) a property, gives keyword arguments.
        batch_size: Samples in the batch; None: as many as are usual for the model.
        input_shape: Shape of one sample, for models without ``dummy_inputs``. Detectors of mmdet that ask
            for the images' sizes are told them.

    Returns:
        The arguments, or None where nothing says what the input looks like.
    """
    weight = next(model.parameters())
    batch_size = batch_size or usual_batch_size(model)
    dummy = getattr(model, 'dummy_inputs', None)
    if dummy is not None:
        kwargs = dummy(batch_size) if callable(dummy) else dummy
        return (), {name: on_device(value, weight.device) for name, value in kwargs.items()}
    if input_shape is not None:
        inputs = weight.new_zeros(batch_size, *input_shape)
        return (inputs,), needed_samples(model, inputs)
    return None


def usual_batch_size(model: nn.Module) -> int:
    """Samples per call when timing: the model's ``profile_batch_size``, else 8."""
    return getattr(model, 'profile_batch_size', 8)


def on_device(value: Any, device: torch.device) -> Any:
    """``value`` with all tensors in it on a device; dicts and lists are gone through."""
    if isinstance(value, Mapping):
        return {name: on_device(item, device) for name, item in value.items()}
    if isinstance(value, list):
        return [on_device(item, device) for item in value]
    return value.to(device) if hasattr(value, 'to') else value


def needed_example(
    model: nn.Module, input_shape: Sequence[int] | None, batch_size: int | None, key: str
) -> Example:
    """:func:`example_input`, or a :class:`UserError` that says what ``key`` is missing."""
    example = example_input(model, batch_size, input_shape)
    if example is None:
        raise UserError(
            f'{key} needs an example input: set prune_cfg.profile.input_shape, e.g. (3, 224, 224)'
        )
    return example


def tried_example(
    model: nn.Module, input_shape: Sequence[int] | None, batch_size: int | None, key: str
) -> Example:
    """:func:`needed_example` that the model is known to run on."""
    example = needed_example(model, input_shape, batch_size, key)
    check_shape(model, input_shape)
    return example


@torch.no_grad()
def check_shape(model: nn.Module, input_shape: Sequence[int] | None) -> None:
    """Raise :class:`UserError` for a model that doesn't run on one tensor of ``input_shape``.

    A model with ``dummy_inputs`` isn't run: what those give is its own affair.
    """
    if input_shape is None or getattr(model, 'dummy_inputs', None) is not None:
        return
    args, kwargs = example_input(model, 1, input_shape)
    try:
        with in_eval_mode(model):
            model(*args, **kwargs)
    except Exception as error:  # the model's own code may raise anything
        # first_line gives the type's name where there are no words: not twice
        words = dict.fromkeys((type(error).__name__, first_line(error)))
        why = ': '.join(words).rstrip(' .:')
        raise UserError(
            f'prune_cfg.profile.input_shape is {list(input_shape)}, but the forward pass of '
            f'{type(model).__name__} fails on one tensor of that shape ({why}); give another shape, or '
            'leave it out: FLOPs and latency are then not measured'
        ) from error


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter require a gradient: FLOP counting stumbles over views of those that do."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@torch.no_grad()
def module_flops(model: nn.Module, example: Example, warm: bool = False) -> dict[str, int]:
    """FLOPs of each module's own operations (without its children's), for one forward call.

    FLOPs are two per multiply-accumulate of matrix products and convolutions, as PyTorch's
    ``FlopCounterMode`` counts them; element-wise operations are not counted. Attention runs on the
    plain kernel meanwhile, as the counter doesn't see the fused ones on CPUs. What a model computes
    once and keeps (a rig's geometry) isn't counted.

    Args:
        model: The model.
        example: Arguments of the call.
        warm: The model has been called with them before.

    Returns:
        ``{module name: FLOPs}`` for modules with any; the sum is the model's.
    """
    counter = FlopCounterMode(display=False)
    args, kwargs = example
    with evaluation_mode(model):
        if not warm:
            model(*args, **kwargs)
        with sdpa_kernel(SDPBackend.MATH), frozen(model), own_flops(model, counter) as own, counter:
            model(*args, **kwargs)
    return {name: flops for name, flops in own.items() if flops}


@contextmanager
def own_flops(model: nn.Module, counter: FlopCounterMode) -> Iterator[dict[str, int]]:
    """Record what each module spends itself, by name, while ``counter`` counts.

    What a module calls isn't always what is in it: a ``ModuleList`` is never called, a method of a
    submodule may be called without the submodule, and two modules may call the same one.
    """
    own: dict[str, int] = {}
    running: list[tuple[str, int]] = []  # modules, and the count up to which theirs is settled
    handles = []

    def settle() -> None:
        if running:
            name, before = running[-1]
            own[name] = own.get(name, 0) + counter.get_total_flops() - before

    for name, module in model.named_modules():

        def enter(module: nn.Module, args: tuple, name: str = name) -> None:
            settle()
            running.append((name, counter.get_total_flops()))

        def leave(module: nn.Module, args: tuple, output: Any) -> None:
            settle()
            running.pop()
            if running:
                running[-1] = (running[-1][0], counter.get_total_flops())

        handles += [
            module.register_forward_pre_hook(enter),
            module.register_forward_hook(leave),
        ]
    try:
        yield own
    finally:
        for handle in handles:
            handle.remove()


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
            stack.enter_context(in_eval_mode(model))
        return interleaved_latency([forward(model) for model in models], **kwargs)


def count_params(model: nn.Module) -> int:
    """Parameters of ``model``, tied ones counted once."""
    return sum(p.numel() for p in model.parameters())


def profile(
    models: Sequence[nn.Module], settings: ProfileSettings, latency: bool = True
) -> list[dict[str, Any]]:
    """Parameters, FLOPs and latency of models that take the same input.

    Args:
        models: The first is asked for an example input.
        settings: How to measure.
        latency: Whether to time them, in turn.

    Returns:
        Per model ``params``, ``flops`` of one sample and ``latency_ms`` of ``batch_size`` samples;
        None for what wasn't measured, with a word in the log where an example input is missing.

    Raises:
        UserError: the first model doesn't run on ``settings.input_shape``.
    """
    results = [dict(params=count_params(m), flops=None, latency_ms=None) for m in models]
    single = example_input(models[0], 1, settings.input_shape)
    if single is None:
        print_log(
            'FLOPs and latency not measured: prune_cfg.profile.input_shape is not set', 'current'
        )
        return results
    check_shape(models[0], settings.input_shape)
    batch_size = settings.batch_size or usual_batch_size(models[0])
    if latency:
        batch = example_input(models[0], batch_size, settings.input_shape)
        threads = dict(seconds=settings.seconds, num_threads=settings.num_threads)
        for result, ms in zip(results, model_latency(models, batch, **threads), strict=True):
            result['latency_ms'] = ms
    warm = (latency and batch_size == 1) or next(models[0].parameters()).is_meta
    for model, result in zip(models, results, strict=True):
        result['flops'] = sum(module_flops(model, single, warm).values())
    return results


def latency_note(settings: ProfileSettings, model: nn.Module) -> str:
    """What ``latency_ms`` of a report means."""
    batch_size = settings.batch_size or usual_batch_size(model)
    return f'median, batch {batch_size}, {settings.num_threads} thread(s)'


def device_name(model: nn.Module | None = None) -> str:
    """The name of the device that ``model`` is on, else of the one that the tools would take."""
    cuda = torch.cuda.is_available() if model is None else next(model.parameters()).is_cuda
    if cuda:
        return torch.cuda.get_device_name()
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    name = names[0] if names else platform.processor() or platform.machine()
    return f'cpu ({name})'


def environment() -> dict[str, Any]:
    """Versions and devices behind the figures of a report."""
    return {
        'version': __version__,
        'torch': torch.__version__,
        'python': platform.python_version(),
        'device': device_name(),
        'world_size': dist.get_world_size(),
    }

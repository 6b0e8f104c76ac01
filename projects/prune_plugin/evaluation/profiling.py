"""FLOPs and latency of a model, measured on an example input."""

from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log
from torch import nn

from ..common.model_interface import profile_batch_size_of
from .example_inputs import check_shape, example_input
from .flops import module_flops
from .latency import model_latency
from .settings import ProfileSettings


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
    batch_size = settings.batch_size or profile_batch_size_of(models[0])
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
    batch_size = settings.batch_size or profile_batch_size_of(model)
    return f'median, batch {batch_size}, {settings.num_threads} thread(s)'

"""Parameters, FLOPs and latency of models, measured on an example input."""

import logging
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log
from torch import nn

from ..common.model_interface import profile_batch_size_of
from .example_inputs import (
    check_shape,
    example_input,
    reads_truth,
    require_example_input,
)
from .flops import module_flops
from .latency import model_latency
from .settings import ProfileSettings


def count_params(model: nn.Module) -> int:
    """Number of parameters of ``model``; tied parameters count once."""
    return sum(p.numel() for p in model.parameters())


def profile(
    models: Sequence[nn.Module], settings: ProfileSettings, latency: bool = True
) -> list[dict[str, Any]]:
    """Measure parameters, FLOPs and latency of models that take the same input.

    Args:
        models: The models; the first one provides the example input.
        settings: How to measure.
        latency: Whether to measure latency, with calls of the models interleaved.

    Returns:
        Per model ``params``, ``flops`` of one sample and ``latency_ms`` of ``batch_size`` samples. What
        wasn't measured is None; that an example input is missing is logged, and that there is none.

    Raises:
        UserError: the first model's forward pass fails on ``settings.input_shape``.
    """
    results: list[dict[str, Any]] = [
        dict(params=count_params(m), flops=None, latency_ms=None) for m in models
    ]
    shape = settings.input_shape
    if shape is not None and reads_truth(models[0]):
        print_log(
            f'FLOPs and latency not measured: the forward pass of {type(models[0]).__name__} reads '
            'ground truth',
            'current',
            logging.WARNING,
        )
        return results
    single = example_input(models[0], 1, shape)
    if single is None:
        print_log(
            'FLOPs and latency not measured: prune_cfg.profile.input_shape is not set; for an image model '
            'give, for example, --cfg-options prune_cfg.profile.input_shape=[3,800,1216]',
            'current',
        )
        return results
    check_shape(models[0], shape)
    batch_size = settings.batch_size or profile_batch_size_of(models[0])
    if latency:
        batch = require_example_input(models[0], shape, batch_size, 'prune_cfg.profile')
        latencies = model_latency(models, batch, settings.seconds, settings.num_threads)
        for result, ms in zip(results, latencies, strict=True):
            result['latency_ms'] = ms
    warm = (latency and batch_size == 1) or next(models[0].parameters()).is_meta
    for model, result in zip(models, results, strict=True):
        result['flops'] = sum(module_flops(model, single, warm).values())
    return results


def latency_note(settings: ProfileSettings, model: nn.Module) -> str:
    """How ``latency_ms`` was measured, for reports: statistic, batch size, threads."""
    batch_size = settings.batch_size or profile_batch_size_of(model)
    return f'median, batch {batch_size}, {settings.num_threads} thread(s)'

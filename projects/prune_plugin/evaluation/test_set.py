"""Evaluating a model with a config's test data and metrics, on one rank or many."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger, print_log
from mmengine.registry import DATASETS, METRICS
from mmengine.runner import Runner
from rich.progress import track
from torch import nn
from torch.utils.data import Dataset, Subset

from ..common.distributed import from_rank_0
from ..common.errors import DataNotFoundError, UserError
from ..common.eval_mode import evaluation_mode
from ..common.model_interface import default_prefix_of, headline_of, metainfo_of, read_fully


def metric_names(metric: Mapping) -> set[str]:
    """What ``--eval`` may call a metric: its result prefix, and what its ``metric`` key lists."""
    cls = METRICS.get(metric['type'])
    own = metric.get('metric', [])
    prefix = metric.get('prefix') or default_prefix_of(cls)
    return {name for name in (prefix, *([own] if isinstance(own, str) else own)) if name}


def as_metrics(evaluator: Any) -> list[dict]:
    """The metric configs of a ``test_evaluator``, which may be one dict or a list."""
    if not evaluator:
        return []
    return [evaluator] if isinstance(evaluator, Mapping) else list(evaluator)


def select_metrics(evaluator: Any, names: Sequence[str] | None) -> list[dict]:
    """The metrics that ``--eval`` names; all without names.

    Raises:
        UserError: a name that no metric of the config answers to.
    """
    metrics = as_metrics(evaluator)
    if not names:
        return metrics
    known = [metric_names(metric) for metric in metrics]
    valid = sorted(set().union(*known))
    for name in names:
        if name not in valid:
            raise UserError(
                f'--eval {name} is not a metric of this config; valid are {", ".join(valid) or "none"}'
            )
    return [m for m, own in zip(metrics, known, strict=True) if own & set(names)]


def headline(
    metrics: Sequence[Mapping], results: Mapping[str, float], guess: bool = True
) -> dict[str, str]:
    """The results worth looking at first, each with its better direction, ``'max'`` or ``'min'``.

    A metric class names its own in a class attribute ``headline`` (``{'mAP': 'max'}``, without the
    prefix); of one that doesn't, the first result counts, higher being better.

    Args:
        metrics: Metric configs, as in ``test_evaluator``.
        results: Results by full name, of one model.
        guess: Whether the first result counts of a class that names none.
    """
    chosen: dict[str, str] = {}
    for metric in metrics:
        cls = METRICS.get(metric['type'])
        prefix = metric.get('prefix') or default_prefix_of(cls)
        start = f'{prefix}/' if prefix else ''
        declared = headline_of(cls)
        if declared is None:
            if not guess:
                continue
            declared = {n.removeprefix(start): 'max' for n in results if n.startswith(start)}
            declared = dict(list(declared.items())[:1])
        chosen |= {start + n: better for n, better in declared.items() if start + n in results}
    return chosen


@contextmanager
def tables_hidden() -> Iterator[None]:
    """Keep the metrics' own tables out of the log: a hundred of them would bury everything else."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    try:
        yield
    finally:
        logger.setLevel(level)


def first_samples(dataloader: Mapping, count: int) -> Dataset:
    """The first ``count`` samples of a dataloader config's data set, with its metainfo."""
    dataset = dataloader['dataset']
    dataset = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset
    read_fully(dataset)
    if len(dataset) <= count:
        return dataset
    if isinstance(dataset, BaseDataset):  # its own way, so that it still is what a sampler needs
        dataset.get_subset_(count)
        return dataset
    subset = Subset(dataset, range(count))
    subset.metainfo = metainfo_of(dataset)
    return subset


class TestSet:
    """The config's test data and metrics, loaded once and used for several models.

    Args:
        cfg: The config.
        num_samples: Use the first so many samples, in the data set's order; None: all.
        split: ``'test'`` or ``'val'``: which dataloader and evaluator of the config to use.

    Attributes:
        missing: Why there is nothing to evaluate on, or None.
    """

    __test__ = False

    def __init__(self, cfg: Config, num_samples: int | None = None, split: str = 'test'):
        self.missing: str | None = None
        self.metrics = as_metrics(cfg.get(f'{split}_evaluator'))
        dataloader = cfg.get(f'{split}_dataloader')
        if not dataloader or not self.metrics:
            self.missing = f'the config has no {split}_dataloader and {split}_evaluator'
            return
        try:
            if num_samples is not None:
                dataloader = {**dataloader, 'dataset': first_samples(dataloader, num_samples)}
            self.loader = Runner.build_dataloader(dataloader, seed=0)
        except (DataNotFoundError, FileNotFoundError) as error:
            self.missing = str(error)

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module, label: str, progress: bool = True
    ) -> dict[str, float] | None:
        """Metrics of ``model``, equal on all ranks; None, with a word in the log, without data.

        What is no finite number, such as the precision of a class that doesn't occur, is left out.

        Args:
            model: The model.
            label: What to call it.
            progress: Whether to show a progress bar.
        """
        if self.missing:
            print_log(f'evaluation of the {label} model skipped: {self.missing}', 'current')
            return None
        evaluator = Evaluator([METRICS.build(metric) for metric in self.metrics])
        evaluator.dataset_meta = metainfo_of(self.loader.dataset)
        hidden = not (progress and dist.is_main_process())
        bar = track(self.loader, f'evaluating {label}', disable=hidden)
        with evaluation_mode(model, fused=True):
            for batch in bar:
                evaluator.process(data_samples=model.test_step(batch), data_batch=batch)
        results = from_rank_0(evaluator.evaluate(len(self.loader.dataset)))
        results = {
            k: v for k, v in results.items() if isinstance(v, int | float) and math.isfinite(v)
        }
        shown = ', '.join(f'{k} {results[k]:.4g}' for k in headline(self.metrics, results))
        print_log(f'{label}: {shown}', 'current', logging.INFO)
        return results

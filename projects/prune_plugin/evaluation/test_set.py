"""Evaluating models with the test data and metrics of a config, on one or several ranks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import Evaluator
from mmengine.logging import print_log
from mmengine.registry import DATASETS, METRICS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset, Subset

from ..common.building import built_from
from ..common.distributed import from_rank_0
from ..common.errors import DataNotFoundError, UserError
from ..common.eval_mode import evaluation_mode
from ..common.model_argument import check_model
from ..common.model_interface import default_prefix_of, headline_of, metainfo_of, read_fully
from ..common.progress import track


def metric_names(metric: Mapping) -> set[str]:
    """Names by which ``--eval`` selects a metric: its result prefix, and those in its ``metric`` key."""
    cls = METRICS.get(metric['type'])
    listed = metric.get('metric', [])
    prefix = metric.get('prefix') or default_prefix_of(cls)
    return {name for name in (prefix, *([listed] if isinstance(listed, str) else listed)) if name}


def as_metrics(evaluator: Any) -> list[Mapping]:
    """The metric configs of a ``test_evaluator``, which may be None, one dict or a list of dicts."""
    if not evaluator:
        return []
    return [evaluator] if isinstance(evaluator, Mapping) else list(evaluator)


def select_metrics(evaluator: Any, names: Sequence[str] | None) -> list[Mapping]:
    """The metric configs that ``--eval`` selects; all of them without names.

    Raises:
        UserError: a name matches no metric of the config.
    """
    metrics = as_metrics(evaluator)
    if not names:
        return metrics
    names_by_metric = [metric_names(metric) for metric in metrics]
    valid = sorted(set().union(*names_by_metric))
    for name in names:
        if name not in valid:
            raise UserError(
                f'--eval {name} is not a metric of this config; valid are {", ".join(valid) or "none"}'
            )
    selected = set(names)
    return [
        m for m, valid_names in zip(metrics, names_by_metric, strict=True) if valid_names & selected
    ]


def headline(
    metrics: Sequence[Mapping], results: Mapping[str, float], guess: bool = True
) -> dict[str, str]:
    """The most important results, each with the direction that is better: ``'max'`` or ``'min'``.

    A metric class declares its own in the class attribute ``headline`` (``{'mAP': 'max'}``, without the
    prefix). For a class without it, the first result is taken, and higher is assumed to be better.

    Args:
        metrics: Metric configs, as in ``test_evaluator``.
        results: Results by full name, of one model.
        guess: Whether to take the first result of a class without ``headline``.
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


def first_samples(dataloader: Mapping, count: int) -> Dataset:
    """The data set of a dataloader config, limited to its first ``count`` samples; metainfo is kept."""
    dataset = dataloader['dataset']
    dataset = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset
    read_fully(dataset)
    if len(dataset) <= count:
        return dataset
    if isinstance(dataset, BaseDataset):  # keeps the type, on which samplers may depend
        dataset.get_subset_(count)
        return dataset
    subset = Subset(dataset, range(count))
    subset.metainfo = metainfo_of(dataset)
    return subset


class TestSet:
    """Test data and metrics of a config, loaded once to evaluate several models.

    Args:
        cfg: The config.
        num_samples: Use only the first samples, in the data set's order; None: all.
        split: ``'test'`` or ``'val'``: which dataloader and evaluator of the config to use.

    Attributes:
        missing: Why nothing can be evaluated (no dataloader in the config, no data on disk), or None.
        metrics: Metric configs of the evaluator.
        loader: The dataloader; not set if ``missing`` is.
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
            with built_from(f'{split}_dataloader'):
                self.loader = Runner.build_dataloader(dataloader, seed=0)
        except (DataNotFoundError, FileNotFoundError) as error:
            self.missing = str(error)

    @property
    def samples(self) -> float:
        """How many samples each rank evaluates; 0 without data."""
        return 0.0 if self.missing else len(self.loader.dataset) / dist.get_world_size()

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module, label: str, progress: bool = True
    ) -> dict[str, float] | None:
        """Evaluate ``model``; return its metrics, the same on all ranks.

        Args:
            model: The model, whose ``test_step`` is called for every batch.
            label: Name of the model in the log and on the progress bar (``'dense'``).
            progress: Whether to show a progress bar of its own, outside of a run that has one.

        Returns:
            Finite results by full name (the precision of a class without samples is NaN and left out);
            None without data, which is logged.
        """
        check_model(model)
        if self.missing:
            print_log(f'evaluation of the {label} model skipped: {self.missing}', 'current')
            return None
        evaluator = Evaluator([METRICS.build(metric) for metric in self.metrics])
        evaluator.dataset_meta = metainfo_of(self.loader.dataset)
        total = len(self.loader)
        bar = track(self.loader, f'evaluating {label}', total, self.samples, disable=not progress)
        with evaluation_mode(model, fused=True):
            for batch in bar:
                evaluator.process(data_samples=model.test_step(batch), data_batch=batch)
        results = from_rank_0(evaluator.evaluate(len(self.loader.dataset)))
        results = {
            k: v for k, v in results.items() if isinstance(v, int | float) and math.isfinite(v)
        }
        summary = ', '.join(f'{k} {results[k]:.4g}' for k in headline(self.metrics, results))
        print_log(f'{label}: {summary}', 'current')
        return results

"""What the four metrics share: results per sample, gathered from ranks with unequal shares."""

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from logging import WARNING
from typing import Any

import numpy as np
import torch
from mmengine.dist import collect_results, get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from projects.prune_plugin.common.distributed import on_rank_0
from projects.prune_plugin.common.errors import UserError


class SampleMetric(BaseMetric):
    """A metric over samples, each counted once, however the samples were dealt to the ranks.

    MMEngine's own gathering takes the ranks' results in turn and cuts off what is beyond the size
    of the data set, which is right only if every rank got every n-th sample. A recurrent model is
    given whole scenes instead, so that ranks hold unequal numbers. Here each result carries the
    position of its sample in the data set (``index``, or ``sample_idx`` where there is none); rank
    0 gathers them, drops what came twice, sorts them, computes, and tells the others. Any number
    of processes therefore gives the same figures as one.

    Of a sample that came twice the one that its rank saw earlier stays, because samplers pad at the
    end.

    Args:
        metric: The names under which ``--eval`` selects this metric in a config.
        collect_device: 'gpu' gathers through the process group (gloo too), 'cpu' through files in
            a directory that all ranks share. None: 'cpu' if ``collect_dir`` is given, else 'gpu'.
        collect_dir: The directory for 'cpu', removed afterwards; None for one in the working
            directory.
        prefix: Replaces the default prefix of the result names.
    """

    def __init__(
        self,
        metric: str | Sequence[str] = (),
        collect_device: str | None = None,
        collect_dir: str | None = None,
        prefix: str | None = None,
    ) -> None:
        if collect_device is None:
            collect_device = 'gpu' if collect_dir is None else 'cpu'
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.metric = [metric] if isinstance(metric, str) else list(metric)

    @abstractmethod
    def process_sample(self, sample: dict) -> Any:
        """What has to be kept of one sample: small, picklable, on the CPU."""

    @abstractmethod
    def compute_metrics(self, results: list) -> dict[str, float]:
        """The figures, from what :meth:`process_sample` kept of every sample in order."""

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep what is needed of each sample of a batch."""
        for sample in data_samples:
            self.results.append((self.key(sample), self.process_sample(sample)))

    def key(self, sample: dict) -> Hashable:
        """What tells a sample from all others, and sorts them."""
        for name in ('index', 'sample_idx'):
            if sample.get(name) is not None:
                return sample[name]
        raise UserError(
            f'{type(self).__name__} needs index or sample_idx in the metainfo of every sample'
        )

    def array(self, sample: dict, element: str, field: str) -> np.ndarray:
        """``sample[element][field]`` as an array on the CPU.

        Raises:
            UserError: it isn't there.
        """
        value = (sample.get(element) or {}).get(field)
        if value is None:
            raise UserError(
                f'{type(self).__name__} needs {element}.{field} in every sample, and sample '
                f'{self.key(sample)!r} has none'
            )
        return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.array(value)

    def meta(self, sample: dict, name: str) -> Any:
        """``sample[name]``, which its metainfo holds.

        Raises:
            UserError: it isn't there.
        """
        if sample.get(name) is None:
            raise UserError(
                f'{type(self).__name__} needs {name} in the metainfo of every sample, and sample '
                f'{self.key(sample)!r} has none'
            )
        return sample[name]

    def classes(self, own: Sequence[str] | None, name: str = 'classes') -> list[str]:
        """Class names: the metric's own argument, else what the data set says."""
        found = own or (self.dataset_meta or {}).get(name)
        if not found:
            raise UserError(
                f'{type(self).__name__} needs {name}, which neither its arguments nor the '
                "data set's metainfo give"
            )
        return list(found)

    def evaluate(self, size: int) -> dict[str, float]:
        """The figures over all ranks, the same on each.

        Args:
            size: Samples in the data set; too few results are reported, none are cut off.

        Raises:
            UserError: on every rank, if rank 0 could not compute them.
        """
        parts = self.gather()
        figures = on_rank_0(lambda: self.figures(parts, size))
        self.results.clear()
        return figures

    def gather(self) -> list[list] | None:
        """The results of every rank on rank 0, None elsewhere."""
        if get_world_size() == 1:
            return [list(self.results)]
        # One item per rank, so that nothing is interleaved or cut off.
        return collect_results(
            [list(self.results)], get_world_size(), self.collect_device, tmpdir=self.collect_dir
        )

    def figures(self, parts: list[list], size: int) -> dict[str, float]:
        """Prefixed figures from the results of all ranks."""
        results = in_order(parts)
        if len(results) < size:
            print_log(
                f'{type(self).__name__}: {len(results)} of {size} samples were evaluated',
                'current',
                WARNING,
            )
        figures = self.compute_metrics(results)
        return {f'{self.prefix}/{k}' if self.prefix else k: float(v) for k, v in figures.items()}


def in_order(parts: list[list[tuple[Hashable, Any]]]) -> list:
    """Results of all ranks, each sample's once, sorted by key.

    Args:
        parts: For every rank ``(key, result)`` in the order in which it saw them.
    """
    ranked = [
        (key, position, rank, result)
        for rank, part in enumerate(parts)
        for position, (key, result) in enumerate(part)
    ]
    found: dict[Hashable, Any] = {}
    for key, _, _, result in sorted(ranked, key=lambda item: item[:3]):
        found.setdefault(key, result)
    return list(found.values())

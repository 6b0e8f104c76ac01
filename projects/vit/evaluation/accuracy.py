"""Top-k accuracy."""

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.registry import METRICS

from projects.prune_plugin.common.errors import UserError


def label_positions(scores: torch.Tensor, labels: torch.Tensor, maxk: int) -> torch.Tensor:
    """Return where each label stands in its row's ranking: 0 is best, ``maxk`` is beyond ``maxk``.

    Args:
        scores: ``(N, C)``, higher is better.
        labels: ``(N,)`` class indices.
        maxk: How far to look, at most ``C``.
    """
    hits = scores.topk(maxk, dim=-1).indices == labels[:, None]
    return torch.where(hits.any(dim=-1), hits.int().argmax(dim=-1), maxk)


@METRICS.register_module()
class Accuracy(BaseMetric):
    """The share of images, in percent, whose label is among the k highest scores.

    Results are named ``accuracy/top1``, ``accuracy/top5``. A k above the number of classes is
    clipped to it. Samples that a distributed sampler adds to fill the last batch are not counted.

    Args:
        topk: One k or several, each at least 1.
        collect_device: 'gpu' gathers the ranks' results through the process group (gloo too),
            'cpu' through files in the working directory.
        prefix: Replaces ``accuracy`` in the names.

    Example::

        val_evaluator = dict(type='Accuracy', topk=(1, 5))
    """

    default_prefix = 'accuracy'

    def __init__(
        self,
        topk: int | Sequence[int] = (1, 5),
        collect_device: str = 'gpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        several = topk if isinstance(topk, list | tuple) else (topk,)
        self.topk = tuple(several)
        if not self.topk or any(type(k) is not int or k < 1 for k in self.topk):
            raise UserError(f'Accuracy.topk={topk!r} must hold integers of at least 1')

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep ``(position of the label, number of classes)`` for each prediction of a batch."""
        if any(sample['gt_label'] is None for sample in data_samples):
            raise UserError(
                'Accuracy needs a gt_label for every image, but the data set gives none'
            )
        scores = torch.stack([sample['pred_score'] for sample in data_samples])
        labels = torch.as_tensor([int(sample['gt_label']) for sample in data_samples])
        num_classes = scores.shape[-1]
        positions = label_positions(
            scores, labels.to(scores.device), min(max(self.topk), num_classes)
        )
        self.results.extend((position, num_classes) for position in positions.tolist())

    def compute_metrics(self, results: list[tuple[int, int]]) -> dict[str, float]:
        """Return ``{'top1': percent, ...}`` and log a line with ``Acc@1``."""
        if not results:
            raise UserError('Accuracy has nothing to count: the data set to evaluate is empty')
        num_classes = results[0][1]
        positions = torch.tensor([position for position, _ in results])
        metrics = {}
        for k in dict.fromkeys(min(k, num_classes) for k in self.topk):
            metrics[f'top{k}'] = 100.0 * (positions < k).double().mean().item()
        line = ' '.join(f'Acc@{name[3:]} {value:.2f}' for name, value in metrics.items())
        MMLogger.get_current_instance().info(f'{line} ({len(results)} images)')
        return metrics

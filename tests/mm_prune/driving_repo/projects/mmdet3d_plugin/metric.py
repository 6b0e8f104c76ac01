"""How often the model turns as it should."""

from collections.abc import Sequence

from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS


@METRICS.register_module()
class SameTurn(BaseMetric):
    """The share of right turns, in percent, as ``same_turn``."""

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        self.results += [100.0 * float(s['predicted'] == s['turn']) for s in data_samples]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return dict(same_turn=sum(results) / len(results))

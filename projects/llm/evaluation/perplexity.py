"""Perplexity over token windows."""

import math
from collections.abc import Sequence

from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.registry import METRICS

from projects.prune_plugin.common.errors import UserError


@METRICS.register_module()
class Perplexity(BaseMetric):
    """exp of the mean cross entropy, in nats, of the tokens that count; computed in float64.

    Results are named ``ppl/perplexity``, ``ppl/windows``, ``ppl/tokens`` (those that count),
    ``ppl/window`` (length) and ``ppl/stride``. Windows that a distributed sampler adds to fill the
    last batch are not counted. A model whose loss isn't finite has a perplexity of infinity.

    Args:
        collect_device: 'gpu' gathers the ranks' results through the process group (gloo too),
            'cpu' through files in the working directory.
        prefix: Replaces ``ppl`` in the names.

    Example::

        test_evaluator = dict(type='Perplexity')
    """

    default_prefix = 'ppl'
    headline = {'perplexity': 'min'}

    def __init__(self, collect_device: str = 'gpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep ``(summed cross entropy, tokens)`` of each window of a batch."""
        self.results.extend((sample['nll'], sample['tokens']) for sample in data_samples)

    def compute_metrics(self, results: list[tuple[float, int]]) -> dict[str, float]:
        """Return the metrics and log a line with the perplexity."""
        tokens = sum(tokens for _, tokens in results)
        if not tokens:
            raise UserError('Perplexity has nothing to count: the data set to evaluate is empty')
        perplexity = exp_or_inf(math.fsum(nll for nll, _ in results) / tokens)
        shape = {key: (self.dataset_meta or {}).get(key) for key in ('window', 'stride')}
        MMLogger.get_current_instance().info(
            f'perplexity {perplexity:.4f} over {len(results)} windows of {shape["window"]} tokens, '
            f'stride {shape["stride"]}, {tokens} tokens counted'
        )
        counted = dict(perplexity=perplexity, windows=len(results), tokens=tokens)
        return counted | {key: value for key, value in shape.items() if value is not None}


def exp_or_inf(value: float) -> float:
    """exp of ``value``; infinity where that is too large for a float, or ``value`` is NaN."""
    return math.exp(value) if value < 700 else math.inf

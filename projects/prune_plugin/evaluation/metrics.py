"""Finding an evaluation result by a short name, and whether higher or lower is better."""

import re
from collections.abc import Mapping, Sequence

from ..common.errors import UserError
from .test_set import headline

#: Words in the last component of a result's name that denote errors, losses and costs.
LOWER_IS_BETTER = frozenset(
    'ade bpb bpc cer col collision collisions cost ece epe err error errors fde fid l1 l2 latency '
    'loss mae maae maoe mase mate mave minade minfde mr mse nll perplexity ppl rmse wer'.split()
)


def resolve_metric(metric: str, results: Mapping[str, float], key: str) -> str:
    """Full name of the result that ``metric`` denotes: an exact match, or a match after a ``/``.

    Args:
        metric: Such as ``'NDS'`` for ``'pts_bbox_NuScenes/NDS'``.
        results: Results by full name.
        key: The config key that holds ``metric``, for messages.

    Raises:
        UserError: no result or several results match; the message lists them.
    """
    if metric in results:
        return metric
    matches = [name for name in results if name.endswith(f'/{metric}')]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UserError(
            f'{key} is {metric!r}, which matches {" and ".join(matches)}; name one of them'
        )
    raise UserError(
        f'{key} is {metric!r}, but the evaluation has no such result; valid are '
        f'{", ".join(results) or "none"}'
    )


def better_direction(name: str, metrics: Sequence[Mapping], results: Mapping[str, float]) -> str:
    """``'max'`` if higher is better, else ``'min'``: as the metric class declares, or by the name.

    Args:
        name: The result's full name.
        metrics: Metric configs, as in ``test_evaluator``.
        results: Results by full name.
    """
    declared = headline(metrics, results, guess=False)
    if name in declared:
        return declared[name]
    words = re.split(r'[^a-z0-9]+', name.rpartition('/')[2].lower())
    return 'min' if LOWER_IS_BETTER.intersection(words) else 'max'

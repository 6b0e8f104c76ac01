"""Results of an evaluation by a short name, and which direction of each is the better one."""

import re
from collections.abc import Mapping, Sequence

from ..common.errors import UserError
from .test_set import headline

#: Words in the last part of a result's name that tell of errors, losses and costs.
LOWER_IS_BETTER = frozenset(
    'ade bpb bpc cer col collision collisions cost ece epe err error errors fde fid l1 l2 latency '
    'loss mae maae maoe mase mate mave minade minfde mr mse nll perplexity ppl rmse wer'.split()
)


def full_name(metric: str, results: Mapping[str, float], key: str) -> str:
    """The result that ``metric`` names: all of its name, or what stands behind a ``/`` in it.

    Args:
        metric: Such as ``'NDS'`` for ``'pts_bbox_NuScenes/NDS'``.
        results: Results by full name.
        key: Where the name comes from, for messages.

    Raises:
        UserError: none or several have the name; the message lists what there is.
    """
    if metric in results:
        return metric
    found = [name for name in results if name.endswith(f'/{metric}')]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f'{key} is {metric!r}, which may be {" or ".join(found)}; give one of them')
    raise UserError(
        f'{key} is {metric!r}, but the evaluation gave no such number; valid are '
        f'{", ".join(results) or "none"}'
    )


def better_direction(name: str, metrics: Sequence[Mapping], results: Mapping[str, float]) -> str:
    """``'max'`` or ``'min'``: what a result's metric class declares, else what its name says.

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

"""From a ``prune_cfg`` to the pruner that it describes."""

from collections.abc import Mapping

from ...common.errors import UserError, format_value
from ...common.registry import PRUNERS, build
from .base import Pruner


def build_pruner(prune_cfg: Mapping) -> Pruner:
    """Build and check a whole ``prune_cfg``; without ``type`` it is a StructuredPruner.

    Args:
        prune_cfg: A dict with the keys of docs/prune_cfg.md.

    Raises:
        UserError: it is no dict, or anything in it isn't valid; the message names the key.
    """
    if not isinstance(prune_cfg, Mapping):
        raise UserError(
            f'prune_cfg is {format_value(prune_cfg)}; it must be a dict, such as '
            "dict(budget=dict(type='params', ratio=0.3))"
        )
    cfg = {'type': 'StructuredPruner', **prune_cfg}
    pruner = build(PRUNERS, cfg, 'prune_cfg')
    pruner.given = cfg
    return pruner

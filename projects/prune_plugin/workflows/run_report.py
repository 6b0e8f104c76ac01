"""The content of ``report.json``, as far as counting goes."""

import sys
from typing import Any

from mmengine.config import Config
from torch import Tensor, nn

from ..common.json_csv import plain
from ..evaluation.environment import environment
from ..evaluation.profiling import latency_note
from ..methods.pruners import Plan, Pruner
from ..structure.units.coverage import uncovered
from .options import PruneOptions


def zeros_in(masks: dict[str, Tensor]) -> float:
    """The fraction of weights that masks remove."""
    total = sum(mask.numel() for mask in masks.values())
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / total


def removed_share(before: float | None, after: float | None) -> float | None:
    """The fraction removed, or None where it wasn't measured."""
    return None if not before or after is None else 1 - after / before


def start_report(
    cfg: Config,
    pruner: Pruner,
    options: PruneOptions,
    model: nn.Module,
    plan: Plan | None,
    profiles: list[dict[str, Any]],
    zeros: float | None = None,
) -> dict[str, Any]:
    """The report so far: what was asked, and what is achieved by count."""
    dense, pruned = profiles[0], profiles[-1]
    achieved = {
        'params': removed_share(dense['params'], pruned['params']),
        'flops': removed_share(dense['flops'], pruned['flops']),
        'latency': removed_share(dense['latency_ms'], pruned['latency_ms']),
        'zeros': zeros,
    }
    groups, state = [], plan.state if plan else None
    for group in plan.groups if plan else []:
        kept = len(state.kept[group.name])
        groups.append(
            dict(
                name=group.name,
                kind=group.kind,
                layer_idx=group.layer_idx,
                size=group.size,
                kept=kept,
            )
        )
    return {
        'asked': pruner.asked,
        'dense': {**dense, 'metrics': None},
        'pruned': {**pruned, 'metrics': None},
        'achieved': achieved,
        'headline': {},
        'groups': groups,
        'removed_layers': state.removed_layers if state else [],
        'not_prunable': plan.refused if plan else {},
        'uncovered': uncovered(model, plan.groups) if state else {},
        'seconds': {},
        'config': cfg.filename,
        'checkpoint': options.checkpoint,
        'prune_cfg': plain(cfg.prune_cfg.to_dict()) if cfg.get('prune_cfg') else None,
        'command': sys.argv,
        'notes': {
            'ratio': 'fraction removed, relative to the model given ("dense" here)',
            'flops': 'two per multiply-accumulate, one sample',
            'latency_ms': latency_note(pruner.profile, model),
            'zeros': 'fraction of the linear and convolution weights of <name>_pruned.pth; zeros '
            'bring no speed-up by themselves',
        },
        'environment': environment(),
    }

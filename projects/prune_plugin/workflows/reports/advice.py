"""Advice on what a report shows: what to ask for instead."""

from collections.abc import Mapping


def advice(report: Mapping) -> str | None:
    """A sentence where parameters were asked for and went, but hardly any of the FLOPs with them.

    Args:
        report: As in ``report.json``.

    Returns:
        The sentence, or None where at least half that share of the FLOPs went, or FLOPs aren't known.
    """
    dense, pruned = report['dense'], report['pruned']
    if report['asked']['budget'] != 'params' or not dense.get('flops') or not pruned.get('flops'):
        return None
    params, flops = (1 - pruned[key] / dense[key] for key in ('params', 'flops'))
    if flops >= params / 2:
        return None
    return (
        f'{100 * params:.3g} % of the parameters are gone, but only {100 * flops:.3g} % of the FLOPs: '
        'what went has many parameters and computes little. For a faster model ask for '
        "prune_cfg.budget.type='flops' or 'latency'."
    )

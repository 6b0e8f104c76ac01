"""Advice on what a report shows: what to ask for instead."""

from ..run_report import RunReport


def advice(report: RunReport) -> str | None:
    """A sentence where parameters were asked for and went, but hardly any of the FLOPs with them.

    Args:
        report: The run's.

    Returns:
        The sentence, or None where at least half that share of the FLOPs went, or FLOPs aren't known.
    """
    params, flops = (report.achieved.get(quantity) for quantity in ('params', 'flops'))
    if report.asked['budget'] != 'params' or params is None or flops is None or flops >= params / 2:
        return None
    return (
        f'{100 * params:.3g} % of the parameters are gone, but only {100 * flops:.3g} % of the FLOPs: '
        'what went has many parameters and computes little. For a faster model ask for '
        "prune_cfg.budget.type='flops' or 'latency'."
    )

"""Flags of ``tools/analysis_struct.py`` for a curve: several ratios in one run."""

import argparse
from typing import Any

from arguments import Parser, ratio

BASELINES = ('random', 'uniform')
#: Flags that choose what a curve compares, or what it keeps.
OF_CURVES = ('criteria', 'allocators', 'baselines', 'keep')
#: What goes with one pruning, not with several.
OF_ONE = (
    'pruning_ratio', 'fine_tune', 'resume', 'dry_run', 'meta', 'save_table', 'save_hf', 'save_onnx',
    'save_exported', 'save_gguf',
)  # fmt: skip


def add_curve_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of a curve."""
    parser.add_argument(
        '--ratios',
        type=ratio,
        nargs='+',
        metavar='R',
        help='instead: prune at each of these ratios without training, evaluate, and draw curves; what '
        'the output directory holds already is not done again',
    )
    parser.add_argument(
        '--criteria',
        nargs='+',
        metavar='NAME',
        help="with --ratios: criteria to compare, such as L1 Taylor; default: the config's",
    )
    parser.add_argument(
        '--allocators',
        nargs='+',
        metavar='NAME',
        help="with --ratios: allocators to compare, such as Uniform Knapsack; default: the config's",
    )
    parser.add_argument(
        '--baselines',
        nargs='+',
        choices=BASELINES,
        help='with --ratios: random scores, the same ratio everywhere',
    )
    parser.add_argument(
        '--keep',
        choices=('best', 'all', 'none'),
        help='with --ratios: checkpoints to keep; best: the best of each ratio; default: best',
    )


def check_curve(parser: Parser, args: argparse.Namespace) -> None:
    """End with what doesn't go with ``--ratios``; sort them."""
    if args.ratios is None:
        for name in OF_CURVES:
            if getattr(args, name):
                parser.error(f'--{name} goes with --ratios')
        return
    if args.sensitivity is not None:
        parser.error('--sensitivity and --ratios are two analyses; leave one out')
    for name in OF_ONE:
        if getattr(args, name) not in (None, False):
            parser.error(
                f'--{name.replace("_", "-")} does not go with --ratios, which prunes at several ratios '
                'and trains nothing; leave one out'
            )
    args.ratios = sorted(set(args.ratios))


def take_nested_ratios(args: argparse.Namespace, pruner: Any) -> None:
    """Take the config's ``budget.ratios`` as ``--ratios``, where a run would make models of them.

    Raises:
        UserError: a flag goes with one pruning.
    """
    if args.ratios or not pruner.nested or args.sensitivity is not None:
        return
    if args.dry_run or args.meta:  # shows the plan for the last
        return
    from projects.prune_plugin import UserError

    for name in OF_ONE:
        if getattr(args, name) not in (None, False):
            raise UserError(
                f'--{name.replace("_", "-")} does not go with prune_cfg.budget.ratios, which makes several '
                'models and trains none; leave one out'
            )
    args.ratios = list(pruner.nested)

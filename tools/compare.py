"""Compare checkpoints of one config: size, FLOPs, latency, every metric; or draw curves into one."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from arguments import (  # noqa: E402
    Parser,
    add_common_arguments,
    check_directory,
    check_inputs,
    positive,
    start,
)


def seconds(text: str) -> float:
    """A number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = float('nan')
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of seconds above 0')
    return value


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        'config', nargs='?', help='config file; the dense one also for slim checkpoints'
    )
    parser.add_argument(
        'checkpoints',
        nargs='*',
        metavar='checkpoint',
        help='checkpoints; the first is the reference',
    )
    parser.add_argument(
        '--curves', nargs='+', metavar='FILE',
        help='instead: draw these curve.json, which tools/analysis_struct.py has left, into one picture',
    )  # fmt: skip
    parser.add_argument(
        '--labels', nargs='+', metavar='LABEL',
        help='a name for each checkpoint or curve; default: its folder and stem',
    )  # fmt: skip
    parser.add_argument(
        '--out', default='work_dirs/compare', help='where results go; default: work_dirs/compare'
    )
    parser.add_argument(
        '--eval', nargs='+', metavar='NAME', help="metrics to compute; default: all of the config's"
    )
    parser.add_argument('--no-eval', action='store_true', help='compute no metrics')
    parser.add_argument(
        '--batch-size', type=positive,
        help='samples per timed forward call; default: prune_cfg.profile.batch_size, else 8',
    )  # fmt: skip
    parser.add_argument(
        '--num-threads', type=positive,
        help='CPU threads when timing; default: prune_cfg.profile.num_threads, else 1',
    )  # fmt: skip
    parser.add_argument(
        '--seconds', type=seconds,
        help='time to spend on timing all models; default: prune_cfg.profile.seconds, else 4',
    )  # fmt: skip
    add_common_arguments(parser)
    args = parser.parse_args(argv)
    if args.eval and args.no_eval:
        parser.error('--eval and --no-eval exclude each other; leave one out')
    check_given(parser, args)
    check_labels(parser, args)
    if args.curves is None:
        check_inputs(parser, args, *args.checkpoints)
    check_directory(parser, '--out', args.out)
    return args


def check_given(parser: Parser, args: argparse.Namespace) -> None:
    """End unless there are either checkpoints of a config, or curves."""
    if args.curves is not None:
        if args.config:
            parser.error(f'--curves are drawn without {args.config}; leave one out')
        return
    if not args.config:
        parser.error('what to compare is missing: CONFIG and checkpoints, or --curves FILE...')
    if not args.checkpoints:
        parser.error('what to compare is missing: checkpoints of the config')


def check_labels(parser: Parser, args: argparse.Namespace) -> None:
    """End with labels that don't name each checkpoint."""
    labels, count = args.labels, len(args.curves or args.checkpoints)
    what = 'curve' if args.curves else 'checkpoint'
    if labels is None:
        return
    if len(labels) != count:
        parser.error(f'--labels has {len(labels)} names for {count} {what}s; give one for each')
    if not all(label.strip() for label in labels):
        parser.error(f'--labels holds an empty name; give each {what} one to be told by')
    for label in labels:
        if labels.count(label) > 1:
            parser.error(f'--labels names two {what}s {label!r}; labels must be distinct')


def main(args: argparse.Namespace) -> None:
    """Run the tool."""
    if args.curves:
        draw_curves(args)
        return
    from mmengine import dist

    from projects.prune_plugin.common.fileio import output_directory
    from projects.prune_plugin.workflows import cli, compare
    from projects.prune_plugin.workflows.reports import print_comparison, write_comparison

    cfg = cli.read_config(args.config, args.cfg_options)
    settings = compare.profile_settings(
        cfg, batch_size=args.batch_size, num_threads=args.num_threads, seconds=args.seconds
    )
    cli.start_processes(cfg, args.launcher)
    with output_directory(args.out, '--out') as folder:
        report = compare.compare(
            cfg, args.checkpoints, settings, args.labels, args.eval, not args.no_eval
        )
        if dist.is_main_process():
            files = write_comparison(report, folder)
    if dist.is_main_process():
        print_comparison(report)
        for path in files:
            print(path)


def draw_curves(args: argparse.Namespace) -> None:
    """Draw ``curves.png`` and write ``curves.csv``."""
    from projects.prune_plugin.common.fileio import output_directory
    from projects.prune_plugin.workflows.compare import path_labels
    from projects.prune_plugin.workflows.reports import plot_curves, read_curve, write_curves_csv

    labels = args.labels or path_labels(args.curves)
    reports = {label: read_curve(path) for label, path in zip(labels, args.curves, strict=True)}
    with output_directory(args.out, '--out') as folder:
        write_curves_csv(reports, folder / 'curves.csv')
        drawn = plot_curves(reports, folder / 'curves.png')
    print(folder / 'curves.csv')
    if drawn:
        print(drawn)


if __name__ == '__main__':
    start(parse, main)

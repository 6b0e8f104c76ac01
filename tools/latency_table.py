"""List the layer shapes to time on another machine for a latency budget, with the script that does it."""

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


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument('config', help='config file; its prune_cfg says which units there are')
    parser.add_argument(
        'checkpoint', nargs='?', help='checkpoint, dense or slim; default: the model as it is built'
    )
    parser.add_argument('--output-dir', required=True, metavar='DIR', help='where to write')
    parser.add_argument(
        '--points',
        type=positive,
        help="numbers of units to time per layer; default: the latency budget's, else 5",
    )
    add_common_arguments(parser)
    args = parser.parse_args(argv)
    if args.points == 1:
        parser.error('--points is 1; at least 2 are needed to interpolate between')
    check_inputs(parser, args, args.checkpoint)
    check_directory(parser, '--output-dir', args.output_dir)
    return args


def main(args: argparse.Namespace) -> None:
    """Run the tool."""
    from projects.prune_plugin.common.fileio import output_directory
    from projects.prune_plugin.workflows import cli
    from projects.prune_plugin.workflows.latency_shapes import write_latency_shapes

    cfg = cli.read_config(args.config, args.cfg_options)
    cli.start_processes(cfg, args.launcher)
    with output_directory(args.output_dir) as folder:
        files = write_latency_shapes(cfg, args.checkpoint, folder, args.points)
    print(*files, sep='\n')


if __name__ == '__main__':
    start(parse, main)

"""Train a config; with a prune_cfg in it, prune what load_from names and then train that."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from arguments import (  # noqa: E402
    Parser,
    add_common_arguments,
    add_export_arguments,
    check_directory,
    check_exports,
    check_inputs,
    start,
)
from next_step import print_next_step  # noqa: E402


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir', help='where logs and checkpoints go; default: work_dirs/<config name>'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or without a name from the newest in the work directory',
    )
    parser.add_argument('--load-from', help='checkpoint to start from; overrides the config')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    add_export_arguments(parser, 'the trained model')
    add_common_arguments(parser)
    args = parser.parse_args(argv)
    check_inputs(parser, args)
    check_started_from(parser, args)
    check_exports(parser, args)
    check_directory(parser, '--work-dir', args.work_dir)
    return args


def check_started_from(parser: Parser, args: argparse.Namespace) -> None:
    """End with a checkpoint to start or to go on from that isn't there."""
    if args.resume not in (None, 'auto') and not os.path.isfile(args.resume):
        parser.error(f'--resume {args.resume} does not exist; give a .pth file')
    first = args.load_from
    if not first or args.resume or '://' in first:  # a resumed training needs no first checkpoint
        return
    if not os.path.isfile(os.path.expanduser(first)):
        parser.error(f'load_from {first} does not exist; give a .pth file')


def main(args: argparse.Namespace) -> None:
    """Run the tool."""
    from mmengine import dist

    from projects.prune_plugin.checkpoints.export import formats
    from projects.prune_plugin.common.directory_lock import locked
    from projects.prune_plugin.common.fileio import output_directory
    from projects.prune_plugin.workflows import cli, train
    from projects.prune_plugin.workflows.reports import print_history, print_report

    cfg = cli.read_config(args.config, args.cfg_options)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    if args.load_from:
        cfg.load_from = args.load_from
    if args.resume:
        cfg.resume = True
        cfg.resume_path = None if args.resume == 'auto' else args.resume
    if args.amp:
        train.use_amp(cfg)
    exports = formats.Exports.of(args)
    formats.check(cfg, exports)
    cli.start_processes(cfg, args.launcher)
    with output_directory(cfg.work_dir, '--work-dir'), locked(cfg.work_dir, '--work-dir'):
        report = train.train(cfg, args.launcher)
        formats.save(cfg, Path(cfg.work_dir) / 'latest.pth', exports)
    if not dist.is_main_process():
        return
    if report:
        if report.rounds:
            print_history(report.record())
        print_report(report)
    print_next_step(args, cfg, Path(cfg.work_dir) / 'latest.pth')


if __name__ == '__main__':
    start(parse, main)

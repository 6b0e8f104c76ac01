"""Train a config; with a prune_cfg in it, prune what load_from names and then train that."""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.prune_plugin.workflows import cli  # noqa: E402


def parse(argv: Sequence[str] | None):
    """Parse the command line."""
    parser = cli.Parser(description=__doc__)
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
    cli.add_export_arguments(parser, 'the trained model')
    cli.add_common_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool."""
    args = parse(argv)

    from mmengine import dist

    from projects.prune_plugin.checkpoints.export import formats
    from projects.prune_plugin.common import distributed
    from projects.prune_plugin.common.fileio import output_directory
    from projects.prune_plugin.workflows import train
    from projects.prune_plugin.workflows.reports import print_history, print_report
    from projects.prune_plugin.workflows.round_record import Record

    cfg = cli.read_config(args.config, args.cfg_options)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    if args.load_from:
        cfg.load_from = args.load_from
    if args.resume:
        cfg.resume = True
        cfg.resume_path = None if args.resume == 'auto' else args.resume
    if args.amp:
        train.use_amp(cfg)
    formats.check(cfg, args)
    distributed.init(args.launcher)
    cli.log_world(args.launcher)
    with output_directory(cfg.work_dir, '--work-dir'):
        report = train.train(cfg, args.launcher)
        formats.save(cfg, Path(cfg.work_dir) / 'latest.pth', args)
    if report and dist.is_main_process():
        if report.get('rounds'):
            print_history(Record.of_report(report))
        print_report(report)


if __name__ == '__main__':
    cli.run(main)

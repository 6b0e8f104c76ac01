"""Evaluate a checkpoint, dense or slim, with the dense config."""

import argparse
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


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument('config', help='config file; the dense one also for slim checkpoints')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help="checkpoint; a slim one describes its own structure; default: the model's own weights",
    )
    parser.add_argument(
        '--eval',
        nargs='+',
        metavar='NAME',
        help="metrics to compute, or the model's evaluators as NAME:ARGUMENT, such as "
        "lm_eval:arc_easy,hellaswag; default: all of the config's metrics",
    )
    parser.add_argument('--work-dir', help='where logs go; default: work_dirs/<config name>')
    parser.add_argument(
        '--tmpdir', help='folder in which ranks exchange results; default: automatic'
    )
    parser.add_argument('--amp', action='store_true', help='evaluate in mixed precision')
    add_export_arguments(parser, 'the model')
    add_common_arguments(parser)
    args = parser.parse_args(argv)
    check_inputs(parser, args, args.checkpoint)
    check_exports(parser, args)
    check_directory(parser, '--work-dir', args.work_dir)
    return args


def main(args: argparse.Namespace) -> None:
    """Run the tool."""
    from mmengine import dist

    from projects.prune_plugin.checkpoints.export import formats
    from projects.prune_plugin.common.fileio import output_directory
    from projects.prune_plugin.workflows import cli
    from projects.prune_plugin.workflows.evaluate import evaluated

    cfg = cli.read_config(args.config, args.cfg_options)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    if args.amp:
        cfg.test_cfg = dict(cfg.get('test_cfg') or {}, fp16=True)
    exports = formats.Exports.of(args)
    formats.check(cfg, exports)
    cli.start_processes(cfg, args.launcher)
    with output_directory(cfg.work_dir, '--work-dir'):
        metrics, model = evaluated(cfg, args.checkpoint, args.eval, args.launcher, args.tmpdir)
        if args.quiet and dist.is_main_process():
            print(*(f'{name}: {value}' for name, value in metrics.items()), sep='\n')
        formats.save(cfg, args.checkpoint, exports, model)


if __name__ == '__main__':
    start(parse, main)

"""Prune the model of a config, report, and optionally fine-tune or retrain it."""

import argparse
import errno
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
    nearest,
    positive,
    ratio,
    start,
    warn,
)
from curve_arguments import add_curve_arguments, check_curve, take_nested_ratios  # noqa: E402
from gpu_arguments import add_gpu_arguments, choose_devices  # noqa: E402
from next_step import print_next_step  # noqa: E402

#: How a score table begins: its first columns.
TABLE_START = b'name,layer_idx'


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = make_parser()
    args = parser.parse_args(argv)
    check_curve(parser, args)
    check_sensitivity(parser, args)
    check_training(parser, args)
    check_dry_run(parser, args)
    check_meta(parser, args)
    if args.random_weights and args.checkpoint:
        parser.error('--random-weights and CHECKPOINT say two things; give one of them')
    args.write_plan = args.meta and args.output_dir is not None
    args.output_dir = args.output_dir or './pruned_models'
    check_inputs(parser, args, args.checkpoint)
    check_exports(parser, args)
    writes = args.write_plan or not (args.meta or args.dry_run)
    check_directory(parser, '--output-dir', args.output_dir if writes else None)
    check_tables(parser, args, writes)
    check_replaced(parser, args, writes)
    choose_devices(parser, args)
    return args


def make_parser() -> Parser:
    """All arguments, unchecked."""
    parser = Parser(description=__doc__, epilog='Ratios are fractions REMOVED, in (0, 1).')
    parser.add_argument('config', help='config file; the dense one, or one with a prune_cfg')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help="checkpoint to prune; default: the config's load_from, else freshly initialised weights",
    )
    parser.add_argument(
        '--random-weights',
        action='store_true',
        help='prune freshly initialised weights although the config has a load_from',
    )
    parser.add_argument(
        '--pruning-ratio',
        type=ratio,
        help='fraction removed; default: prune_cfg.budget.ratio, else 0.3',
    )
    parser.add_argument('--output-dir', help='where results go; default: ./pruned_models')
    parser.add_argument(
        '--fine-tune', action='store_true', help='train the pruned model afterwards'
    )
    parser.add_argument(
        '--retrain',
        action='store_true',
        help='with --fine-tune: from epoch 0, 0.5 x the learning rate, a fresh optimizer '
        '(otherwise: goes on with 0.1 x and the optimizer state)',
    )
    parser.add_argument(
        '--fine-tune-epochs', type=positive, help='epochs to train; default: prune_cfg.recovery'
    )
    parser.add_argument(
        '--train',
        choices=('structured', 'unstructured'),
        help='which of the two pruned models to train; default: structured, unless there is none',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--resume',
        action='store_true',
        help='go on with what a killed run of the same arguments left in the output directory; '
        'for a WeightPruner, and for pruning in steps (rescoring, reconstruction)',
    )
    parser.add_argument(
        '--dry-run', action='store_true', help='print the table; write no model and no report'
    )
    parser.add_argument(
        '--meta',
        action='store_true',
        help='a dry run by shapes alone: no weights, no data, random scores; says what each rank '
        'would hold, and with --output-dir writes report and tables',
    )
    parser.add_argument('--save-table', metavar='FILE', help='save all scores as CSV')
    parser.add_argument(
        '--from-table', metavar='FILE', help='take the scores from such a file, at any ratio'
    )
    add_export_arguments(parser, 'the pruned (after --fine-tune: the recovered) model')
    parser.add_argument(
        '--sensitivity',
        type=ratio,
        nargs='*',
        metavar='R',
        help='instead: prune each module alone at these ratios and evaluate; default: 0.1 0.3 0.5',
    )
    parser.add_argument(
        '--sensitivity-samples',
        type=positive,
        metavar='N',
        help='with --sensitivity: evaluate on the first N test samples; default: all',
    )
    add_curve_arguments(parser)
    add_gpu_arguments(parser)
    add_common_arguments(parser)
    return parser


def check_training(parser: Parser, args: argparse.Namespace) -> None:
    """End with what goes with ``--fine-tune`` alone."""
    for name in ('retrain', 'train'):
        if getattr(args, name) and not args.fine_tune:
            parser.error(f'--{name} goes with --fine-tune')
    for name in ('fine_tune_epochs', 'amp'):
        if getattr(args, name) and not args.fine_tune:
            warn(f'{flag(name)} has no effect without --fine-tune', args.launcher)


def check_dry_run(parser: Parser, args: argparse.Namespace) -> None:
    """End with what doesn't go with ``--dry-run``."""
    if not args.dry_run:
        return
    if args.fine_tune:
        parser.error('--dry-run trains nothing; leave out --fine-tune')
    if args.resume:
        parser.error('--dry-run leaves nothing to resume; leave out --resume')
    for name in ('save_hf', 'save_onnx', 'save_exported', 'save_gguf'):
        if getattr(args, name):
            parser.error(f'--dry-run writes no model; leave out {flag(name)}')


def check_meta(parser: Parser, args: argparse.Namespace) -> None:
    """End with what doesn't go with ``--meta``."""
    if not args.meta:
        return
    for name in (
        'checkpoint',
        'fine_tune',
        'save_hf',
        'save_onnx',
        'save_exported',
        'save_gguf',
        'resume',
    ):
        if getattr(args, name):
            given = name.upper() if name == 'checkpoint' else flag(name)
            parser.error(f'--meta plans without weights; leave out {given}')


def check_sensitivity(parser: Parser, args: argparse.Namespace) -> None:
    """End with what doesn't go with ``--sensitivity``; sort its ratios."""
    if args.sensitivity is None:
        if args.sensitivity_samples:
            parser.error('--sensitivity-samples goes with --sensitivity')
        return
    for name in (
        'pruning_ratio', 'fine_tune', 'resume', 'dry_run', 'meta', 'save_table', 'save_hf',
        'save_onnx', 'save_exported', 'save_gguf',
    ):  # fmt: skip
        if getattr(args, name) not in (None, False):
            parser.error(
                f'{flag(name)} does not go with --sensitivity, which prunes each '
                'module alone and keeps no pruned model; leave one out'
            )
    args.sensitivity = sorted(set(args.sensitivity)) or [0.1, 0.3, 0.5]


def check_tables(parser: Parser, args: argparse.Namespace, writes: bool) -> None:
    """End with a score table that can't be read, or can't be written.

    Args:
        parser: The tool's.
        args: What it has parsed.
        writes: Whether the output directory will be there.
    """
    if args.from_table and not os.path.exists(args.from_table):
        why = os.strerror(errno.ENOENT)
        parser.error(f'--from-table {args.from_table} cannot be read: {why}')
    if not args.save_table:
        return
    if is_other_file(args.save_table):
        parser.error(
            f'--save-table {args.save_table} is a file that is no score table; name a new file, or a '
            'table to replace'
        )
    if os.path.isdir(args.save_table):
        why = os.strerror(errno.EISDIR)
        parser.error(f'--save-table {args.save_table} cannot be written: {why}; name a file')
    folder, made = Path(os.path.abspath(args.save_table)).parent, os.path.abspath(args.output_dir)
    if not folder.is_dir() and not (writes and Path(made).is_relative_to(folder)):
        code = errno.ENOENT if nearest(str(folder)).is_dir() else errno.ENOTDIR
        parser.error(f'--save-table {args.save_table} cannot be written: {os.strerror(code)}')


def is_other_file(path: str) -> bool:
    """Whether a file is there that doesn't begin as a score table does."""
    if not os.path.isfile(path):
        return False
    with open(path, 'rb') as file:
        start = file.read(len(TABLE_START))
    return bool(start) and start != TABLE_START


def check_replaced(parser: Parser, args: argparse.Namespace, writes: bool) -> None:
    """End where the results would replace the checkpoint that they are made from."""
    if not (writes and args.checkpoint) or args.resume:
        return
    given, folder = Path(args.checkpoint), Path(args.output_dir)
    if given.name.endswith('_pruned.pth') and given.resolve().parent == folder.resolve():
        parser.error(
            f'--output-dir {args.output_dir} holds the checkpoint {given.name} that is to be pruned, and '
            'results would replace it; name another directory'
        )


def flag(name: str) -> str:
    """The flag of an argument."""
    return f'--{name.replace("_", "-")}'


def main(args: argparse.Namespace) -> None:
    """Run the one job that the arguments ask for."""
    from mmengine import dist

    from projects.prune_plugin.checkpoints.export.formats import Exports
    from projects.prune_plugin.common.device import check_asked_gpus
    from projects.prune_plugin.workflows import cli, jobs
    from projects.prune_plugin.workflows.curve import CurveOptions
    from projects.prune_plugin.workflows.options import PruneOptions
    from projects.prune_plugin.workflows.prune import pruner_from_config
    from projects.prune_plugin.workflows.sensitivity import SensitivityOptions

    if said := check_asked_gpus(args.gpu_ids):
        warn(said, args.launcher)
    cfg = cli.read_config(args.config, args.cfg_options)
    if args.checkpoint is None and not (args.random_weights or args.meta):
        args.checkpoint = cfg.get('load_from')
    pruner = pruner_from_config(cfg, args.pruning_ratio)
    take_nested_ratios(args, pruner)
    folder, tables = Path(args.output_dir), (args.save_table, args.from_table)
    plan_only = args.dry_run or args.meta
    exports = Exports.of(args)
    options = PruneOptions(args.checkpoint, folder, plan_only, *tables, args.resume)
    written = None
    if args.sensitivity is not None:
        asked = SensitivityOptions(
            args.checkpoint, folder, args.sensitivity, args.sensitivity_samples, args.from_table
        )
        jobs.analyse_sensitivity(cfg, pruner, asked, args.launcher)
    elif args.ratios:
        curve = CurveOptions(
            args.checkpoint, folder, args.ratios, args.criteria or (), args.allocators or (),
            args.baselines or (), args.keep or 'best', args.from_table,
        )  # fmt: skip
        jobs.draw_curve(cfg, pruner, curve, args.launcher)
    elif args.meta:
        jobs.plan_on_meta(cfg, pruner, options, args.write_plan, args.launcher)
    elif args.dry_run:
        jobs.dry_run(cfg, pruner, options, args.launcher)
    elif args.fine_tune:
        training = jobs.Training(args.retrain, args.fine_tune_epochs, args.train, args.amp)
        jobs.prune_and_train(cfg, pruner, options, training, exports, args.launcher)
        written = jobs.work_dir_of(pruner, options, training) / 'latest.pth'
    else:
        written = jobs.prune(cfg, pruner, options, exports, args.launcher).trained()
    if written and dist.is_main_process():
        print_next_step(args, cfg, written)


if __name__ == '__main__':
    start(parse, main)

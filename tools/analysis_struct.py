"""Prune the model of a config, report, and optionally fine-tune or retrain it."""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.prune_plugin.workflows import cli  # noqa: E402


def parse(argv: Sequence[str] | None):
    """Parse the command line."""
    parser = cli.Parser(description=__doc__, epilog='Ratios are fractions REMOVED, in [0, 1).')
    parser.add_argument('config', help='config file; the dense one, or one with a prune_cfg')
    parser.add_argument(
        'checkpoint', nargs='?', help='checkpoint to prune; default: freshly initialised weights'
    )
    parser.add_argument(
        '--pruning-ratio',
        type=cli.ratio,
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
        '--fine-tune-epochs', type=cli.positive, help='epochs to train; default: prune_cfg.recovery'
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
        'for a WeightPruner',
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
    cli.add_export_arguments(parser, 'the pruned (after --fine-tune: the recovered) model')
    parser.add_argument(
        '--sensitivity',
        type=cli.ratio,
        nargs='*',
        metavar='R',
        help='instead: prune each module alone at these ratios and evaluate; default: 0.1 0.3 0.5',
    )
    parser.add_argument(
        '--sensitivity-samples',
        type=cli.positive,
        metavar='N',
        help='with --sensitivity: evaluate on the first N test samples; default: all',
    )
    cli.add_gpu_arguments(parser)
    cli.add_common_arguments(parser)
    args = parser.parse_args(argv)
    check_sensitivity(parser, args)
    if args.retrain and not args.fine_tune:
        parser.error('--retrain goes with --fine-tune')
    if args.train and not args.fine_tune:
        parser.error('--train goes with --fine-tune')
    if args.dry_run and args.fine_tune:
        parser.error('--dry-run trains nothing; leave out --fine-tune')
    if args.dry_run and args.resume:
        parser.error('--dry-run leaves nothing to resume; leave out --resume')
    for flag in ('save_hf', 'save_onnx', 'save_exported'):
        if args.dry_run and getattr(args, flag):
            parser.error(f'--dry-run writes no model; leave out --{flag.replace("_", "-")}')
    check_meta(parser, args)
    args.output_dir = args.output_dir or './pruned_models'
    return args


def check_meta(parser, args) -> None:
    """End with what doesn't go with ``--meta``; say whether it writes."""
    if args.meta:
        for name in ('checkpoint', 'fine_tune', 'save_hf', 'save_onnx', 'save_exported', 'resume'):
            if getattr(args, name):
                flag = name.upper() if name == 'checkpoint' else f'--{name.replace("_", "-")}'
                parser.error(f'--meta plans without weights; leave out {flag}')
    args.write_plan = args.meta and args.output_dir is not None


def check_sensitivity(parser, args) -> None:
    """End with what doesn't go with ``--sensitivity``; sort its ratios."""
    if args.sensitivity is None:
        if args.sensitivity_samples:
            parser.error('--sensitivity-samples goes with --sensitivity')
        return
    for name in (
        'pruning_ratio', 'fine_tune', 'resume', 'dry_run', 'meta', 'save_table', 'save_hf',
        'save_onnx', 'save_exported',
    ):  # fmt: skip
        if getattr(args, name) not in (None, False):
            parser.error(
                f'--{name.replace("_", "-")} does not go with --sensitivity, which prunes each '
                'module alone and keeps no pruned model; leave one out'
            )
    if 0 in args.sensitivity:
        parser.error('--sensitivity 0 removes nothing; ratios must be in (0, 1)')
    args.sensitivity = sorted(set(args.sensitivity)) or [0.1, 0.3, 0.5]


def analyse_sensitivity(cfg, pruner, args) -> None:
    """Do what ``--sensitivity`` asks for."""
    from mmengine import dist

    from projects.prune_plugin.common import distributed
    from projects.prune_plugin.common.fileio import output_directory
    from projects.prune_plugin.workflows import sensitivity
    from projects.prune_plugin.workflows.reports import print_sensitivity

    sensitivity.check_pruner(pruner)
    distributed.init(args.launcher)
    cli.log_world(args.launcher)
    with output_directory(args.output_dir) as folder:
        options = sensitivity.SensitivityOptions(
            args.checkpoint, folder, args.sensitivity, args.sensitivity_samples, args.from_table
        )
        report = sensitivity.analyse(cfg, pruner, options)
    if dist.is_main_process():
        print_sensitivity(report)
        for ending in ('csv', 'json', 'png'):
            print(folder / f'sensitivity.{ending}')


def plan_on_meta(cfg, pruner, args) -> None:
    """Do what ``--meta`` asks for."""
    from contextlib import nullcontext

    from mmengine import dist

    from projects.prune_plugin.common import distributed
    from projects.prune_plugin.common.fileio import output_directory
    from projects.prune_plugin.workflows import plan_on_meta, prune
    from projects.prune_plugin.workflows.reports import print_kinds, print_memory, print_report

    distributed.init(args.launcher)
    folder = Path(args.output_dir)
    with output_directory(folder) if args.write_plan else nullcontext():
        options = prune.PruneOptions(None, folder, True, args.save_table, args.from_table)
        report = plan_on_meta.plan_on_meta(cfg, pruner, options, args.write_plan)
    if dist.is_main_process():
        print_kinds(report)
        print_report(report)
        print_memory(report)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool."""
    args = parse(argv)
    cli.choose_devices(args)

    from contextlib import nullcontext
    from dataclasses import replace

    from mmengine import dist

    from projects.prune_plugin import StructuredPruner, UserError, WeightPruner
    from projects.prune_plugin.checkpoints.export import formats
    from projects.prune_plugin.common import distributed
    from projects.prune_plugin.common.fileio import output_directory
    from projects.prune_plugin.training import config_edits
    from projects.prune_plugin.workflows import prune, train
    from projects.prune_plugin.workflows.iterate.runner_per_round import prune_in_rounds
    from projects.prune_plugin.workflows.reports import (
        print_groups,
        print_history,
        print_report,
        print_search,
    )
    from projects.prune_plugin.workflows.round_record import Record

    cfg = cli.read_config(args.config, args.cfg_options)
    pruner = prune.pruner_from_config(cfg, args.pruning_ratio)
    if args.sensitivity is not None:
        analyse_sensitivity(cfg, pruner, args)
        return
    if args.meta:
        plan_on_meta(cfg, pruner, args)
        return
    formats.check(cfg, args)
    if args.resume and not isinstance(pruner, WeightPruner):
        raise UserError(
            f'--resume goes with a WeightPruner, but prune_cfg.type is {type(pruner).__name__!r}; its '
            'training goes on with tools/train.py --resume'
        )
    settings = pruner.recovery
    if args.fine_tune:
        settings = config_edits.settings_for(settings, args.retrain, args.fine_tune_epochs)
        config_edits.check_trainable(cfg, settings)
        config_edits.check_teacher(settings, args.checkpoint)
        if args.train == 'structured' and not isinstance(pruner, StructuredPruner):
            raise UserError(
                f'--train structured: a {type(pruner).__name__} makes no structured model; '
                'leave it out, or give unstructured'
            )
        pruner.rounds = [
            replace(
                r,
                recovery=config_edits.settings_for(r.recovery, args.retrain, args.fine_tune_epochs),
            )
            for r in pruner.rounds
        ]
        config_edits.check_data(cfg, 'train_dataloader')
        if args.amp:
            train.use_amp(cfg)
    in_rounds = pruner.in_rounds and not args.dry_run
    distributed.init(args.launcher)
    cli.log_world(args.launcher)
    folder = Path(args.output_dir)
    with nullcontext(folder) if args.dry_run else output_directory(folder):
        options = prune.PruneOptions(
            args.checkpoint, folder, args.dry_run, args.save_table, args.from_table, args.resume
        )
        if in_rounds and args.fine_tune:
            work_dir = folder
            outcome = train.train_in_rounds(cfg, pruner, options, args.launcher)
        elif in_rounds:
            outcome = prune_in_rounds(cfg, pruner, options)
        else:
            outcome = prune.prune(cfg, pruner, options)
        if args.fine_tune and not in_rounds:
            work_dir = folder / config_edits.FOLDERS[settings.mode]
            train.recover(cfg, settings, outcome, work_dir, args.launcher, args.train, args.resume)
            if dist.is_main_process():
                prune.write_report(outcome, folder)
        if not args.dry_run:
            final = work_dir / 'latest.pth' if args.fine_tune else outcome.trained()
            formats.save(cfg, final, args)
    if dist.is_main_process():
        if args.dry_run:
            print_groups(outcome.report)
        if outcome.report.get('rounds'):
            print_history(Record.of_report(outcome.report))
        if outcome.report.get('search'):
            print_search(outcome.report['search'])
        print_report(outcome.report)
        for path in (outcome.structured, outcome.weight_level):
            if path:
                print(path)


if __name__ == '__main__':
    cli.run(main)

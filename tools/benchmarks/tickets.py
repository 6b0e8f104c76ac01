"""Dense, one-shot, IMP, Refill and RSST on CIFAR-10: the same epochs in all, several seeds.

Every run is tools/train.py on vit_tiny_cifar10; what it ends with is the accuracy of the model that is
left, cut. Runs that are done already, with the same settings, are not run again.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from data_folders import CIFAR10  # noqa: E402

CONFIG = ROOT / 'projects' / 'configs' / 'ViT' / 'vit_tiny_cifar10.py'
TABLE = ROOT / 'docs' / 'benchmarks' / 'tickets.csv'
PLOT = ROOT / 'docs' / 'images' / 'tickets.png'
UNITS = dict(
    type='StructuredPruner',
    units=[dict(type='AttentionHeads'), dict(type='FFNNeurons')],
    criterion=dict(type='L1', parts='in', normalize='mean'),
    allocator=dict(type='Global'),
)
WEIGHTS = dict(
    type='WeightPruner',
    sparsifier=dict(type='Magnitude', scope='global'),
    include=[r'backbone\.blocks\.'],
)


def prune_cfg(method: str, args: Namespace) -> dict[str, Any]:
    """The ``prune_cfg`` of a method."""
    rounds = 1 if method == 'one-shot' else args.states - 1
    schedule = dict(type='Geometric', rounds=rounds, rewind='initial')
    if method == 'IMP':
        return dict(WEIGHTS, budget=dict(ratio=args.ratio), schedule=schedule)
    found = dict(UNITS, budget=dict(type='units', ratio=args.ratio), schedule=schedule)
    if method == 'RSST':
        # A state of so few steps needs a stronger pull than the 21,120 of the document.
        found['penalty'] = dict(type='RSST', strength=args.strength)
        found['schedule'] = dict(schedule, rewind=None)
    return found


#: Epochs of one state, of ``states * epochs`` in all.
METHODS = ('dense', 'one-shot', 'IMP', 'Refill', 'RSST')


def check_cifar10() -> None:
    """Raise :class:`UserError` unless the data is where the config looks for it."""
    from mmengine.config import Config

    from projects.prune_plugin.training.config_edits import check_data

    cfg = Config.fromfile(CONFIG)
    check_data(cfg, 'train_dataloader')
    check_data(cfg, 'test_dataloader')


def run(method: str, seed: int, args: Namespace) -> dict[str, Any]:
    """Train once; what came of it."""
    name = method.lower().replace('-', '')
    folder = args.work_dir / f'{name}_{seed}'
    total = args.states * args.epochs
    options = {
        'randomness.seed': seed,
        'train_dataloader.dataset.indices': args.images,
        'train_cfg.val_interval': total if method == 'dense' else args.epochs,
        'default_hooks.logger.interval': 20,
    }
    if method == 'dense':
        options['train_cfg.max_epochs'] = total
    else:
        options['train_cfg.type'] = 'IterativePruneLoop'
        options['train_cfg.max_epochs'] = total // 2 if method == 'one-shot' else args.epochs
    pruning = None if method == 'dense' else prune_cfg(method, args)
    settings = json.dumps([str(args.data), options, pruning], sort_keys=True)
    done = folder / 'settings.json'
    if not (done.is_file() and done.read_text() == settings):
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / f'{name}.py'
        config.write_text(f'_base_ = {str(CONFIG)!r}\nprune_cfg = {pruning!r}\n')
        command = [sys.executable, str(ROOT / 'tools' / 'train.py'), str(config)]
        command += ['--work-dir', str(folder), '--cfg-options']
        command += [f'{key}={value}' for key, value in options.items()]
        log = folder / 'log.txt'
        with log.open('w') as file:
            ended = subprocess.run(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
                env=dict(os.environ, OMP_NUM_THREADS='1'),
            )
        if ended.returncode:
            last = log.read_text().strip().splitlines()[-1:]
            raise SystemExit(f'{method} with seed {seed} failed: {"".join(last)} ({log})')
        done.write_text(settings)
    return dict(method=method, seed=seed, **result(method, folder))


def result(method: str, folder: Path) -> dict[str, Any]:
    """Accuracy at the end, before and after removal, and what is left."""
    if method != 'dense':
        last = json.loads((folder / 'states.json').read_text())[-1]
        return dict(
            accuracy=last['after_removal']['accuracy/top1'],
            before_removal=last['before_removal']['accuracy/top1'],
            params=last['params'],
            kept={kind: left / size for kind, (left, size) in last['kept'].items()},
        )
    logs = sorted(folder.glob('*/vis_data/scalars.json'))[-1].read_text().splitlines()
    values = [entry for line in logs if 'accuracy/top1' in (entry := json.loads(line))]
    value = values[-1]['accuracy/top1']
    return dict(accuracy=value, before_removal=value, params=None, kept={})


def write(rows: list[dict[str, Any]], args: Namespace) -> None:
    """The table, the JSON and the picture of what has been measured so far."""
    from common import write as write_json

    summary = {}
    for method in dict.fromkeys(row['method'] for row in rows):
        own = [row for row in rows if row['method'] == method]
        values = [row['accuracy'] for row in own]
        gaps = [row['accuracy'] - row['before_removal'] for row in own]
        summary[method] = dict(
            seeds=len(own),
            mean=statistics.mean(values),
            spread=statistics.stdev(values) if len(values) > 1 else None,
            change_by_removal=max(gaps, key=abs),
            params=own[0]['params'],
            kept=own[0]['kept'],
        )
    settings = {
        k: v for k, v in vars(args).items() if k not in ('work_dir', 'data', 'seeds', 'jobs')
    }
    write_json('tickets', dict(settings=settings, summary=summary, runs=rows))
    with TABLE.open('w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(('method', 'seed', 'accuracy', 'before removal', 'parameters'))
        for row in rows:
            keys = ('method', 'seed', 'accuracy', 'before_removal', 'params')
            writer.writerow(
                [round(v, 2) if isinstance(v := row[key], float) else v for key in keys]
            )
    draw(summary)


def draw(summary: dict[str, dict[str, Any]]) -> None:
    """Mean and spread of each method."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6))
    names = list(summary)
    means = [summary[name]['mean'] for name in names]
    spreads = [summary[name]['spread'] or 0 for name in names]
    axes.errorbar(names, means, yerr=spreads, fmt='o', color='#2b6cb0', capsize=4)
    for x, value in enumerate(means):
        axes.annotate(f'{value:.1f}', (x, value), xytext=(8, -3), textcoords='offset points')
    axes.set_ylabel('accuracy (%), after removal')
    axes.margins(x=0.12)
    axes.grid(axis='y', alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    figure.tight_layout()
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--data', type=Path, default=CIFAR10, help='default: CIFAR10_ROOT, data/cifar10'
    )
    parser.add_argument('--methods', default=','.join(METHODS), help='comma-separated')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--states', type=int, default=4, help='the dense one included')
    parser.add_argument('--epochs', type=int, default=6, help='of each state')
    parser.add_argument('--images', type=int, default=10000, help='to train on')
    parser.add_argument('--ratio', type=float, default=0.7, help='fraction removed at the end')
    parser.add_argument('--strength', type=float, default=20.0, help="of RSST's penalty")
    parser.add_argument('--jobs', type=int, default=os.cpu_count(), help='runs at a time')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'tickets')
    args = parser.parse_args()
    for method in args.methods.split(','):
        if method not in METHODS:
            parser.error(f'--methods has {method!r}; valid are {", ".join(METHODS)}')
    from projects.prune_plugin.common.errors import UserError

    os.environ['CIFAR10_ROOT'] = str(args.data)  # where the config looks, here and in the runs
    try:
        check_cifar10()
    except UserError as error:
        parser.error(str(error))
    wanted = [(m, seed) for seed in range(args.seeds) for m in args.methods.split(',')]
    rows = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for row in pool.map(lambda pair: run(*pair, args), wanted):
            rows.append(row)
            print(json.dumps(row), flush=True)
            write(rows, args)


if __name__ == '__main__':
    main()

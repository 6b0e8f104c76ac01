"""What criteria and allocators are worth on the trained VAD_nano: the same retraining at equal parameters.

The dense model is ckpts/vad_nano_toy.pth; it is retrained on a drive that it has not seen, and evaluated on
the test scenes of the toy drive. All runs differ by what is compared and by the seed, of the choice of
calibration batches, of a random choice and of the retraining.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import ROOT, save

CONFIG = ROOT / 'projects/configs/VAD/VAD_nano_toy_trained_prune0.3.py'
TAYLOR, FISHER = "dict(type='Taylor', order=1)", "dict(type='Fisher')"
L1, RANDOM = "dict(type='L1')", "dict(type='Random', seed={seed})"
#: ``prune_cfg.criterion`` and ``prune_cfg.allocator`` of each method, and other blocks that it has.
METHODS = {
    'taylor-knapsack': (TAYLOR, 'Knapsack', ''),
    'l1-uniform': (L1, 'Uniform', ''),
    'random-uniform': (RANDOM, 'Uniform', ''),
    'l1-knapsack': (L1, 'Knapsack', ''),
    'taylor-uniform': (TAYLOR, 'Uniform', ''),
    'fisher-knapsack': (FISHER, 'Knapsack', ''),
    'taylor-refit': (TAYLOR, 'Knapsack', "compensation=dict(type='LeastSquares'),"),
    'taylor-distill': (TAYLOR, 'Knapsack', 'recovery=dict(distill=dict()),'),
}
#: These read no gradients, so losses have no weights in them.
WITHOUT_GRADIENTS = (L1, RANDOM)
STAGES = ('dense', 'pruned', 'recovered')


def write_config(folder: Path, method: str, ratio: float, seed: int) -> Path:
    """The config of one run: it differs from the repository's in what is compared."""
    criterion, allocator, others = METHODS[method]
    weights = 'loss_weights=dict(_delete_=True),' if criterion in WITHOUT_GRADIENTS else ''
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'VAD_nano.py'
    path.write_text(
        f'_base_ = [{str(CONFIG)!r}]\n'
        f'randomness = dict(seed={seed})\n'
        'prune_cfg = dict(\n'
        f'    criterion=dict(_delete_=True, **{criterion.format(seed=seed)}),\n'
        f'    allocator=dict(_delete_=True, type={allocator!r}),\n'
        f'    budget=dict(ratio={ratio}),\n'
        f'    calibration=dict(seed={seed}, {weights}),\n'
        f'    {others}\n'
        ')\n'
    )
    return path


def run(options: argparse.Namespace, method: str, ratio: float, seed: int) -> None:
    """Prune and retrain once, unless that was done before."""
    folder = Path(options.folder) / f'{method}_{ratio}_{seed}'
    report = folder / 'report.json'
    if report.exists() and 'recovered' in json.loads(report.read_text()):
        return
    config = write_config(folder, method, ratio, seed)
    # One table of scores for all ratios and allocators.
    table = Path(options.folder) / f'{method.split("-")[0]}_{seed}.csv'
    scores = ['--from-table', table] if table.exists() else ['--save-table', table]
    command = [
        sys.executable, 'tools/analysis_struct.py', config, options.checkpoint,
        '--output-dir', folder, '--fine-tune', '--retrain', '--amp',
        '--fine-tune-epochs', options.epochs, *scores,
    ]  # fmt: skip
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    environment = {**os.environ, 'OMP_NUM_THREADS': str(threads), 'GOMP_SPINCOUNT': '0'}
    print('$', *command, flush=True)
    with open(folder / 'log.txt', 'w') as log:
        subprocess.run(
            list(map(str, command)), cwd=ROOT, env=environment, stdout=log, stderr=log, check=True
        )


def collect(options: argparse.Namespace) -> list[dict]:
    """One row per finished run and stage."""
    rows = []
    for method in METHODS:
        for ratio in options.ratios:
            for seed in options.seeds:
                path = Path(options.folder) / f'{method}_{ratio}_{seed}' / 'report.json'
                if not path.exists():
                    continue
                report = json.loads(path.read_text())
                for stage in STAGES:
                    if stage in report:
                        entry = dict(method=method, ratio=ratio, seed=seed, stage=stage)
                        metrics = report[stage]['metrics']
                        rows.append({**entry, 'params': report[stage]['params'], **picked(metrics)})
    return rows


def picked(metrics: dict) -> dict:
    """The figures of the comparison: the path's error over 1 to 3 s, and the map's precision."""
    l2 = [metrics[f'planning/plan_L2_{t}s'] for t in (1, 2, 3)]
    return dict(
        plan_l2=sum(l2) / 3,
        plan_l2_3s=l2[2],
        collisions_3s=metrics['planning/plan_obj_box_col_3s'],
        map_ap=metrics['NuscMap_chamfer/mAP'],
        car_ap=metrics['pts_bbox_NuScenes/car_AP_dist_2.0'],
        nds=metrics['pts_bbox_NuScenes/NDS'],
        epa_car=metrics['motion/EPA_car'],
        divider_ap=metrics['NuscMap_chamfer/divider_AP'],
        detection_ap=metrics['pts_bbox_NuScenes/mAP'],
    )


def main() -> None:
    """Run what is missing and save all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--checkpoint', default='ckpts/vad_nano_toy.pth')
    parser.add_argument('--folder', default=str(ROOT / 'work_dirs/bench_vad_prune'))
    parser.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS)[:3])
    parser.add_argument('--ratios', nargs='+', type=float, default=[0.3, 0.5])
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--epochs', type=int, default=2)
    parser.add_argument('--jobs', type=int, default=2, help='runs at a time')
    parser.add_argument('--only-collect', action='store_true', help='run nothing')
    options = parser.parse_args()
    if not options.only_collect:
        first, *others = options.ratios
        with ThreadPoolExecutor(options.jobs) as pool:
            for ratios in ([first], others):  # the scores that the first saves serve the others
                runs = [(m, r, s) for s in options.seeds for r in ratios for m in options.methods]
                list(pool.map(lambda run_: run(options, *run_), runs))
    save('vad_prune', dict(epochs=options.epochs, results=collect(options)))


if __name__ == '__main__':
    main()

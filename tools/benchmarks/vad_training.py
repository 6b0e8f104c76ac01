"""Time of a training iteration of VAD_nano before and after a change: two commits in turn, one run."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, save

CONFIG = 'projects/configs/VAD/VAD_nano_toy.py'
LINE = re.compile(r'Epoch\(train\)\s+\[\d+\]\[\s*(\d+)/.*? time: ([\d.]+).*? loss: ([\d.]+)')


def checked_out(commit: str, folder: Path) -> Path:
    """The files of a commit, in a folder of their own."""
    archive = subprocess.run(['git', 'archive', commit], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(['tar', '-x', '-C', folder], input=archive.stdout, check=True)
    (folder / 'data').symlink_to(ROOT / 'data')
    return folder


def train(root: Path, work_dir: Path, options: argparse.Namespace, more: list[str]) -> list[tuple]:
    """(iteration, seconds, loss) of a training, as its log says."""
    command = [
        sys.executable, 'tools/train.py', CONFIG, '--work-dir', work_dir, *more, '--cfg-options',
        f'train_cfg.max_epochs={options.epochs}', 'train_cfg.val_interval=100',
        f'default_hooks.logger.interval={options.interval}', 'val_dataloader=None',
        'val_evaluator=None', 'val_cfg=None',
    ]  # fmt: skip
    environment = {**os.environ, 'PYTHONPATH': str(root), 'GOMP_SPINCOUNT': '0'}
    environment['OMP_NUM_THREADS'] = str(options.threads)
    done = subprocess.run(
        list(map(str, command)), cwd=root, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
    return [(int(i), float(t), float(loss)) for i, t, loss in LINE.findall(done.stdout)]


def main() -> None:
    """Train with both in turn, and save their times and losses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--before', required=True, help='the commit to compare with')
    parser.add_argument('--epochs', type=int, default=3, help='of 40 iterations of two pairs each')
    parser.add_argument('--interval', type=int, default=10, help='iterations of a time in the log')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=1)
    options = parser.parse_args()
    result: dict = dict(before=options.before, config=CONFIG, threads=options.threads, runs={})
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / 'old').mkdir()
        roots = {'before': checked_out(options.before, folder / 'old'), 'after': ROOT}
        for kind, more in (('float32', []), ('amp', ['--amp'])):
            for number in range(options.rounds):
                for name, root in roots.items():
                    found = train(root, folder / f'{name}_{kind}_{number}', options, more)
                    run = result['runs'].setdefault(f'{kind} {name}', dict(times=[], losses=[]))
                    run['times'] += [seconds for _, seconds, _ in found[1:]]  # the first warms up
                    run['losses'] = [loss for *_, loss in found]
    for run in result['runs'].values():
        run['seconds'] = statistics.median(run.pop('times'))
    for kind in ('float32', 'amp'):
        before, after = (result['runs'][f'{kind} {name}'] for name in roots)
        apart = max(
            abs(a - b) / abs(b) for a, b in zip(after['losses'], before['losses'], strict=True)
        )
        result[kind] = dict(faster=before['seconds'] / after['seconds'], losses_apart=apart)
    save('vad_training', result)
    print(json.dumps({kind: result[kind] for kind in ('float32', 'amp')}, indent=2))


if __name__ == '__main__':
    main()

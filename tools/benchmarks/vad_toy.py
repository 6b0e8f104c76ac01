"""Prune and retrain VAD_nano_toy on the toy drive as `make demo` does, and keep the figures."""

import argparse
import json
import subprocess
import sys
import time

from common import ROOT, save

QUANTITIES = ('params', 'flops', 'latency_ms', 'metrics')


def main() -> None:
    """Run the demo and save what it compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--folder', default='work_dirs/bench_vad', help='where results go')
    parser.add_argument('--only-collect', action='store_true', help='of a demo run before')
    args = parser.parse_args()
    start = time.perf_counter()
    if not args.only_collect:
        command = [sys.executable, 'tools/demo.py', '--anew', '--folder', args.folder]
        subprocess.run(command, cwd=ROOT, check=True)
    seconds = None if args.only_collect else time.perf_counter() - start
    compared = json.loads((ROOT / args.folder / 'compare' / 'compare.json').read_text())
    models = {row['label']: {key: row[key] for key in QUANTITIES} for row in compared['models']}
    save('vad_toy', dict(seconds=seconds, models=models))


if __name__ == '__main__':
    main()

"""Train VAD_nano_toy on the toy drive as `make demo-vad` does, and keep what it reaches."""

import json
import subprocess
import sys
import time

from common import ROOT, save

FOLDER = 'work_dirs/bench_vad'


def main() -> None:
    """Run the demo anew and save its metrics."""
    start = time.perf_counter()
    command = [sys.executable, 'tools/demo_vad.py', '--anew', '--folder', FOLDER]
    subprocess.run(command, cwd=ROOT, check=True)
    seconds = time.perf_counter() - start
    newest = max((ROOT / FOLDER / 'test').glob('*/*.json'), key=lambda path: path.stat().st_mtime)
    metrics = {k: v for k, v in json.loads(newest.read_text()).items() if '/' in k and v == v}
    save('vad_toy', dict(seconds=seconds, metrics=metrics))


if __name__ == '__main__':
    main()

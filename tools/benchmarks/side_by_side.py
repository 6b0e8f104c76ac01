"""This plugin, plain choices and torch-pruning side by side at equal parameters left.

A ViT and a ResNet-50 that read digits, VAD-tiny with random weights, and the small VAD of vad_toy.py if
that was trained. Each method runs in a fresh process on every seed; the pruned models are then timed in
turn in one process. torch-pruning has no budget of parameters: its ratio is found by bisection, which
isn't timed. Pruning is timed warm: finding, scoring, choosing and cutting, without copying the model.
"""

import argparse
import json
import sys
import tempfile
import time
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llm_common import in_fresh_process, watch  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
#: The small VAD that tools/train_nano.py made.
TRAINED_TOY = ROOT / 'ckpts' / 'vad_nano_toy.pth'
#: Where the class of each task is; nothing heavy is imported here, see llm_common.
TASKS = dict(
    vit=('sides.tasks', 'Vit'),
    resnet50=('sides.tasks', 'ResNet50'),
    vad=('sides.vad', 'VadTiny'),
    vad_toy=('sides.vad', 'VadToy'),
)


def work(task: Any, what: str, folder: Path) -> dict[str, Any]:
    """Do what a process was started for: the dense model, a method, or the latency of all."""
    from sides import measure

    if what == 'dense':
        return measure.measure_dense(task)
    if what == 'latency':
        return measure.latencies(task, {file.stem: file for file in folder.glob('*.pth')})
    return measure.measure(task, what, watch, folder / f'{what}.pth')


def compare(name: str, folder: Path) -> dict[str, Any]:
    """Measure a task with every method, each in a process of its own."""

    def run(what: str) -> dict[str, Any]:
        start = time.perf_counter()
        found = in_fresh_process(
            __file__, f'--worker={name}', f'--what={what}', f'--folder={folder}'
        )
        print(f'{name}, {what}: {time.perf_counter() - start:.0f} s', flush=True)
        return found

    result = run('dense')
    methods = {method: run(method) for method in result['settings']['methods']}
    for method, ms in run('latency').items():
        (result['dense'] if method == 'dense' else methods[method])['latency_ms'] = ms
    return dict(**result, methods=methods)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--tasks', nargs='+', choices=TASKS, help='default: all that can run')
    parser.add_argument('--worker', help=argparse.SUPPRESS)
    parser.add_argument('--what', help=argparse.SUPPRESS)
    parser.add_argument('--folder', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        module, cls = TASKS[args.worker]
        with redirect_stdout(sys.stderr):
            found = work(getattr(import_module(module), cls)(), args.what, args.folder)
        print(json.dumps(found))
        return
    found = {}
    for name in args.tasks or TASKS:
        if name == 'vad_toy' and not TRAINED_TOY.is_file() and not args.tasks:
            print(f'vad_toy left out: no {TRAINED_TOY.relative_to(ROOT)}')
            continue
        with tempfile.TemporaryDirectory() as folder:
            found[name] = compare(name, Path(folder))
    from common import save

    for name, result in found.items():
        save(f'side_by_side_{name}', result)


if __name__ == '__main__':
    main()

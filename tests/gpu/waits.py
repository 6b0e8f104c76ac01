"""Prints what the CPU waits for in a warm forward pass and in a training step, by model.

    python tests/gpu/waits.py [--of ../another/checkout] [--lines]

On the pretended GPU; the step has masks, a penalty, clipped gradients and the check of them.
"""

import argparse
import logging
import sys
import warnings
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--of', type=Path, default=TESTS.parent, help='the code to look at')
    parser.add_argument('--lines', action='store_true', help='print each line that waits')
    args = parser.parse_args()
    folders = ('gpu', 'prune_plugin', 'vad', 'vad/models')
    sys.path[:0] = [str(args.of.resolve()), *(str(TESTS / folder) for folder in folders)]
    warnings.filterwarnings('ignore')
    logging.disable(logging.INFO)
    import emulator
    import test_pretended_gpu as tests
    from subjects import subjects

    emulator.ROOT = args.of.resolve()
    print('| model | forward: values read | copies | training step: values read | copies |')
    print('|---|---|---|---|---|')
    for name, make in subjects().items():
        cells, lines = [], {}
        for run in (tests.warm_forward, tests.masked_training):
            with emulator.pretended_gpu() as gpu:
                run(True, make(), gpu)
                cells += [sum(gpu.syncs.values()), sum(gpu.copies.values())]
                lines.update({**gpu.syncs, **gpu.copies})
        print(f'| {name} | {" | ".join(map(str, cells))} |', flush=True)
        for (what, where), count in lines.items() if args.lines else ():
            print(f'    {count} x {what} at {where}')


if __name__ == '__main__':
    main()

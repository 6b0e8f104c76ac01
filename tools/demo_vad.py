"""VAD in one go: write a toy drive, train a small VAD on it, evaluate it, draw what it sees."""

import argparse
import sys
import time
from pathlib import Path

from demo import ROOT, call

CONFIG = 'projects/configs/VAD/VAD_nano_toy.py'


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--folder', default='work_dirs/demo_vad', help='where results go')
    parser.add_argument('--anew', action='store_true', help='train again')
    args = parser.parse_args()
    start = time.perf_counter()
    trained = Path(args.folder) / 'train'

    call('tools/create_data.py', 'toy', '--out', 'data/toy_nuscenes')
    if args.anew or not (ROOT / trained / 'done').exists():
        resume = [] if args.anew else ['--resume']  # of a demo that was broken off
        call('tools/train.py', CONFIG, '--amp', '--work-dir', str(trained), *resume)
        (ROOT / trained / 'done').touch()
    else:
        print(f'using the model trained before in {trained} (--anew trains another)')
    checkpoint = str(trained / 'latest.pth')
    metrics = ('bbox', 'map', 'motion', 'planning')
    call(
        'tools/test.py', CONFIG, checkpoint, '--eval', *metrics, '--work-dir', f'{args.folder}/test'
    )
    pictures = f'{args.folder}/pictures'
    call('tools/visualize.py', CONFIG, checkpoint, '--out', pictures, '--video', 'gif')
    print(f'\npictures of a test scene: {pictures}')
    print(f'done in {time.perf_counter() - start:.0f} s')


if __name__ == '__main__':
    sys.exit(main())

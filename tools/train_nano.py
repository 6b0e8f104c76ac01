"""How ckpts/vad_nano_toy.pth is made: drives of other seeds, a training of two processes, an evaluation."""

import time
from pathlib import Path

from arguments import Parser, check_directory
from demo_steps import ROOT, call, once

TRAIN = 'projects/configs/VAD/VAD_nano_toy_train.py'
TEST = 'projects/configs/VAD/VAD_nano_toy.py'
#: As in the config; the test scenes are those of seed 0.
SEEDS = range(1, 13)
SIZE = ('--scenes', '10', '--frames', '20', '--image-size', '320', '180')


def main() -> None:
    """Make the checkpoint."""
    parser = Parser(description=__doc__)
    parser.add_argument('--folder', default='work_dirs/train_nano', help='where the training goes')
    parser.add_argument('--anew', action='store_true', help='do everything again')
    args = parser.parse_args()
    check_directory(parser, '--folder', str(ROOT / args.folder))
    start = time.perf_counter()
    folder = Path(args.folder)
    call('tools/create_data.py', 'toy', '--out', 'data/toy_nuscenes')
    for seed in SEEDS:
        out = f'data/toy_nuscenes_train/{seed:02d}'
        call('tools/create_data.py', 'toy', '--out', out, '--seed', str(seed), *SIZE)
    resume = [] if args.anew else ['--resume']
    anew = once(
        folder, args.anew,
        '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', 'tools/train.py', TRAIN,
        '--launcher', 'pytorch', '--amp', '--work-dir', str(folder), *resume,
    )  # fmt: skip
    published = folder / 'vad_nano_toy.pth'
    once(
        folder / 'published', anew,
        'tools/publish_model.py', str(folder / 'latest.pth'), str(published), '--without', 'auxiliary.',
    )  # fmt: skip
    once(
        folder / 'test', anew,
        'tools/test.py', TEST, str(published), '--eval', 'bbox', '--work-dir', str(folder / 'test'),
    )  # fmt: skip
    print(f'\n{published}: copy it to ckpts/ to have the demo start from it')
    print(f'done in {time.perf_counter() - start:.0f} s')


if __name__ == '__main__':
    main()

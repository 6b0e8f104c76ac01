"""How ckpts/vad_nano_toy.pth is made: drives of other seeds, a training of two processes, an evaluation."""

import json
import platform
import time
from pathlib import Path
from typing import Any

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
    record = published.with_suffix('.json')
    record.write_text(json.dumps(told(ROOT / folder), indent=1) + '\n')
    print(f'\n{published} and {record.name}: copy them to ckpts/ to have the demo start from them')
    print(f'done in {time.perf_counter() - start:.0f} s')


def told(folder: Path) -> dict[str, Any]:
    """How a training went: its losses by epoch, its time, and the metrics of the test scenes."""
    import torch

    lines = [
        json.loads(line)
        for path in sorted(folder.glob('*/vis_data/scalars.json'))
        for line in path.read_text().splitlines()
    ]
    steps = list({line['step']: line for line in lines if 'loss' in line}.values())
    epochs: dict[int, list[dict]] = {}
    for line in steps:
        epochs.setdefault(int(line['epoch']), []).append(line)
    losses = {
        epoch: {
            key: round(sum(line[key] for line in rows) / len(rows), 4)
            for key in rows[0]
            if 'loss' in key
        }
        for epoch, rows in epochs.items()
    }
    (found,) = sorted((folder / 'test').glob('*/*.json'))[-1:]
    return dict(
        command='make train-nano',
        config=TRAIN,
        seed=0,
        seeds_of_drives=list(SEEDS),
        iterations=max(line['step'] for line in steps),
        seconds_per_iteration=round(sum(line['time'] for line in steps) / len(steps), 3),
        losses_by_epoch=losses,
        metrics_of_the_test_scenes=json.loads(found.read_text()),
        environment=dict(
            torch=torch.__version__, python=platform.python_version(), machine=platform.machine()
        ),
    )


if __name__ == '__main__':
    main()

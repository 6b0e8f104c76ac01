"""The main job in one go: a toy drive, a small VAD, 30 % of it removed, retrained, compared, drawn."""

import time
from pathlib import Path

from arguments import Parser, check_directory
from demo_steps import ROOT, call, once

DENSE = 'projects/configs/VAD/VAD_nano_toy.py'
TRAINED = 'ckpts/vad_nano_toy.pth'
#: Config and epochs of the retraining: of what was trained for long, and of what the demo has trained.
OF_TRAINED = ('projects/configs/VAD/VAD_nano_toy_trained_prune0.3.py', '2')
OF_OWN = ('projects/configs/VAD/VAD_nano_toy_prune0.3.py', '6')
#: A drive to retrain on, as the first of these configs names it.
DRIVE = ('--seed', '13', '--scenes', '10', '--frames', '20', '--image-size', '320', '180')


def main() -> None:
    """Run the demo."""
    parser = Parser(description=__doc__)
    parser.add_argument('--folder', default='work_dirs/demo_vad', help='where results go')
    parser.add_argument(
        '--train', action='store_true',
        help=f'train the dense model first, from nothing, for some minutes; default: {TRAINED}, which '
        'tools/train_nano.py made in two hours',
    )  # fmt: skip
    parser.add_argument('--anew', action='store_true', help='do everything again')
    args = parser.parse_args()
    check_directory(parser, '--folder', str(ROOT / args.folder))
    start = time.perf_counter()
    folders = {
        name: Path(args.folder) / name
        for name in ('dense', 'pruned', 'test', 'compare', 'pictures')
    }
    dense = str(folders['dense'] / 'latest.pth') if args.train else TRAINED
    if not (args.train or (ROOT / dense).is_file()):
        parser.error(f'{dense}, a file of this project, is missing; --train trains a model instead')
    slim = str(folders['pruned'] / 'vad_structured_pruned.pth')
    retrained = str(folders['pruned'] / 'retrained' / 'latest.pth')

    call('tools/create_data.py', 'toy', '--out', 'data/toy_nuscenes')
    config, epochs = OF_OWN if args.train else OF_TRAINED
    anew = args.anew
    if not args.train:
        call('tools/create_data.py', 'toy', '--out', 'data/toy_nuscenes_train/13', *DRIVE)
    else:
        # --resume: of a demo that was broken off; a finished training has nothing to do.
        resume = [] if anew else ['--resume']
        anew = once(
            folders['dense'], anew,
            'tools/train.py', DENSE, '--amp', '--work-dir', str(folders['dense']), *resume,
        )  # fmt: skip
    anew = once(
        folders['pruned'], anew,
        'tools/analysis_struct.py', config, dense, '--output-dir', str(folders['pruned']),
        '--fine-tune', '--retrain', '--fine-tune-epochs', epochs, '--amp',
    )  # fmt: skip
    # The dense config from here on: a checkpoint itself says how slim its model is.
    once(
        folders['test'], anew,
        'tools/test.py', DENSE, retrained, '--eval', 'bbox', '--work-dir', str(folders['test']),
    )  # fmt: skip
    once(
        folders['compare'], anew,
        'tools/compare.py', DENSE, dense, slim, retrained,
        '--labels', 'dense', 'pruned', 'retrained', '--out', str(folders['compare']),
    )  # fmt: skip
    once(
        folders['pictures'], anew,
        'tools/visualize.py', DENSE, dense, slim, retrained, '--labels', 'dense', 'pruned', 'retrained',
        '--out', str(folders['pictures']), '--video', 'gif',
    )  # fmt: skip
    print(
        f'\nreport and plots:    {folders["pruned"]}/report.json, kept_share.png, metrics_params.png'
    )
    print(f'dense/pruned/retrained: {folders["compare"]}/compare.csv, compare.png')
    print(f'what they see, and the truth: {folders["pictures"]}')
    print(f'done in {time.perf_counter() - start:.0f} s')


if __name__ == '__main__':
    main()

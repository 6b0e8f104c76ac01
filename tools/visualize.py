"""Draw a scene: six cameras and the view from above, predictions and truth, as PNG and video."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.prune_plugin import cli  # noqa: E402


def span(text: str) -> tuple[int | None, int | None]:
    """``START:STOP`` of whole numbers; either may be left out."""
    parts = text.split(':')
    if len(parts) != 2 or not all(part.isdecimal() or not part for part in parts):
        raise argparse.ArgumentTypeError(f'{text!r} is not START:STOP, e.g. 0:10 or 5:')
    start, stop = (int(part) if part else None for part in parts)
    return start, stop


def score(text: str) -> float:
    """A score in [0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number in [0, 1]')
    return value


def parse(argv: Sequence[str] | None):
    """Parse the command line."""
    parser = cli.Parser(description=__doc__)
    parser.add_argument('config', help='config file; the dense one also for slim checkpoints')
    parser.add_argument('checkpoint', nargs='?', help='whose predictions; needless with --gt-only')
    parser.add_argument('--out', required=True, help='folder for the pictures')
    parser.add_argument('--split', choices=('test', 'train'), default='test', help='default: test')
    parser.add_argument(
        '--scene', default='0', help='number in the split, from 0, or token; default: 0'
    )
    parser.add_argument(
        '--frames', type=span, default=(None, None), metavar='START:STOP', help='default: all'
    )
    parser.add_argument('--gt-only', action='store_true', help='draw the truth, ask no model')
    parser.add_argument(
        '--video', choices=('mp4', 'gif', 'none'), default='none', help='default: none'
    )
    parser.add_argument(
        '--score', type=score, default=0.3, help='least score of a box; default: 0.3'
    )
    parser.add_argument(
        '--map-score', type=score, default=0.4, help='least score of a map line; default: 0.4'
    )
    parser.add_argument(
        '--frame',
        metavar='FOLDER',
        help='draw this one frame instead: six images and a yaml with their calibration',
    )
    cli.add_common_arguments(parser)
    args = parser.parse_args(argv)
    if not (args.checkpoint or args.gt_only or args.frame):
        parser.error('give a checkpoint, or --gt-only to draw the truth alone')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool."""
    args = parse(argv)
    if not cli.is_first_rank():
        return

    cfg = cli.read_config(args.config, args.cfg_options)

    from projects.vad.visualization.run import Settings, visualize_frame, visualize_scene

    settings = Settings(
        checkpoint=None if args.gt_only else args.checkpoint,
        split=args.split,
        scene=args.scene,
        frames=args.frames,
        video=args.video,
        score=args.score,
        map_score=args.map_score,
    )
    if args.frame:
        visualize_frame(cfg, args.out, args.frame, settings)
    else:
        visualize_scene(cfg, args.out, settings)


if __name__ == '__main__':
    cli.run(main)

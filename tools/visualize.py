"""Draw what a model sees, or several side by side, or the truth alone: cameras and bird's-eye view."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from arguments import (  # noqa: E402
    Parser,
    add_common_arguments,
    check_directory,
    check_inputs,
    start,
)


def frames(text: str) -> slice:
    """START:STOP as in Python, both whole numbers of at least 0 and both optional."""
    match = re.fullmatch(r'(\d*):(\d*)', text)
    if not match:
        raise argparse.ArgumentTypeError(f'{text!r} is not of the form START:STOP, e.g. 0:10')
    start, stop = (int(number) if number else None for number in match.groups())
    return slice(start, stop)


def score(text: str) -> float:
    """A score in [0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = float('nan')
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number in [0, 1]')
    return value


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument('config', help='config file; the dense one also for slim checkpoints')
    parser.add_argument(
        'checkpoints', nargs='*', metavar='checkpoint',
        help='checkpoint, dense or slim, or several to be drawn side by side; not needed for the truth '
        'alone',
    )  # fmt: skip
    parser.add_argument(
        '--labels', nargs='+', metavar='LABEL',
        help='with several checkpoints, a name for each; default: its folder and stem',
    )  # fmt: skip
    parser.add_argument('--out', required=True, help='folder for frame_0000.png ... and the video')
    parser.add_argument('--gt-only', action='store_true', help='draw the truth alone')
    parser.add_argument(
        '--split', choices=('val', 'train'), default='val', help='default: val, the test data'
    )
    parser.add_argument(
        '--scene', default='0', help='number from 0, or the beginning of a token; default: 0'
    )
    parser.add_argument(
        '--frames', type=frames, default=slice(None), metavar='START:STOP',
        help='which frames of the scene to draw; default: all',
    )  # fmt: skip
    parser.add_argument(
        '--frame', metavar='FOLDER',
        help='draw this one frame instead: a YAML record (or a folder with it) and six images',
    )  # fmt: skip
    parser.add_argument(
        '--video', choices=('mp4', 'gif', 'none'), default='none',
        help='a video of the frames, too, of this format; default: none',
    )  # fmt: skip
    parser.add_argument(
        '--score', type=score, default=0.3, help='least score of a predicted object; default: 0.3'
    )
    parser.add_argument(
        '--map-score', type=score, default=0.4, help='least score of a map line; default: 0.4'
    )
    add_common_arguments(parser)
    args = parser.parse_args(argv)
    args.gt_only = args.gt_only or bool(args.frame and not args.checkpoints)
    if not args.checkpoints and not args.gt_only:
        parser.error('checkpoint is missing; name one, or draw the truth alone with --gt-only')
    if args.labels and len(args.labels) != len(args.checkpoints):
        count = len(args.checkpoints)
        parser.error(
            f'--labels has {len(args.labels)} names for {count} checkpoints; give one for each'
        )
    if args.frame and len(args.checkpoints) > 1:
        parser.error('--frame takes one checkpoint; several are drawn on frames of the data set')
    check_inputs(parser, args, *([] if args.gt_only else args.checkpoints))
    if args.frame and not os.path.exists(args.frame):
        frame = Path(args.frame)
        parser.error(f'--frame {frame} does not exist; name a folder with a YAML file, or one')
    check_directory(parser, '--out', args.out)
    return args


def main(args: argparse.Namespace) -> None:
    """Run the tool."""
    from mmengine import dist

    from projects.prune_plugin.workflows import cli

    cfg = cli.read_config(args.config, args.cfg_options)
    cli.start_processes(cfg, args.launcher)
    if dist.is_main_process():  # a scene is one sequence: there is nothing to share out
        draw(args, cfg)


def draw(args: argparse.Namespace, cfg) -> None:
    """Draw what the command line asks for."""
    from rich.progress import track

    from projects.prune_plugin.checkpoints.model_loading import load_model
    from projects.prune_plugin.common.device import best_device
    from projects.prune_plugin.common.errors import UserError
    from projects.prune_plugin.common.fileio import output_directory
    from projects.prune_plugin.workflows.compare import path_labels

    try:
        from projects.vad import visualization
    except ModuleNotFoundError as error:
        if error.name != 'matplotlib':
            raise
        raise UserError(
            'pictures need matplotlib, which is not installed: pip install -e ".[plots]"'
        ) from error

    paths = [] if args.gt_only else args.checkpoints
    models = [load_model(cfg, path, best_device()).model for path in paths] or [None]
    scores = dict(score=args.score, map_score=args.map_score)
    if args.frame:
        views, count = [visualization.single_view(cfg, args.frame, models[0], **scores)], 1
    else:
        dataset = visualization.build_dataset(cfg, args.split)
        indices = visualization.scene_frames(dataset, args.scene)
        numbers = visualization.chosen(len(indices), args.frames)
        drives = [
            visualization.drive_views(dataset, indices, numbers, model, **scores)
            for model in models
        ]
        views, count = drives[0], numbers.stop
    draw = visualization.draw_frame
    if len(models) > 1:
        labels = args.labels or path_labels(paths)
        views = (None if None in seen else seen for seen in zip(*drives, strict=True))

        def draw(seen):
            return visualization.draw_side_by_side(seen, labels)

    with output_directory(args.out, '--out') as folder:
        bar = track(views, 'drawing', total=count)
        video = None if args.video == 'none' else args.video
        files = visualization.write_pictures(bar, folder, video, draw)
    print(f'{len(files)} files in {folder}, from {files[0].name} to {files[-1].name}')


if __name__ == '__main__':
    start(parse, main)

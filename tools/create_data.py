"""Make data: nuScenes' info files or a small synthetic drive for VAD, WikiText-2 for language models."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from arguments import Parser, check_directory, start, warn  # noqa: E402

VERSIONS = ('v1.0-mini', 'v1.0-trainval')


#: What the toy drive can be made of: the least and the most.
SEEDS, SCENES, FRAMES, PIXELS = (0, 2**31), (1, 10), (2, 40), (32, 3200)
#: Key frames of the shortest scene with a sample that has six key frames, three seconds, after it.
PLANNED = 7


def whole(low: int, high: int) -> Callable[[str], int]:
    """A type of whole numbers from ``low`` to ``high``."""

    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from {low} to {high}')
        return int(text)

    return read


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(
        dest='command', required=True, metavar='{nuscenes,toy,wikitext2}'
    )

    real = commands.add_parser(
        'nuscenes',
        help='info files of a nuScenes folder',
        description='Write info files of nuScenes.',
    )
    real.add_argument(
        '--root-path', required=True, help='folder with v1.0-*, samples, sweeps and maps/expansion'
    )
    real.add_argument('--canbus', required=True, help='folder that holds can_bus')
    real.add_argument('--version', required=True, choices=VERSIONS, help='which tables')
    real.add_argument('--out-dir', help='where the info files go; default: the root path')
    real.add_argument('--anew', action='store_true', help='write again what is there already')

    toy = commands.add_parser(
        'toy',
        help='a small synthetic drive, with its info files',
        description='Draw a synthetic drive in the format of nuScenes, and write its info files.',
    )
    toy.add_argument('--out', required=True, help='folder to write, e.g. data/toy_nuscenes')
    toy.add_argument(
        '--seed', type=whole(*SEEDS), default=0, help='another seed, another drive; default: 0'
    )
    toy.add_argument('--scenes', type=whole(*SCENES), default=6, help='1 to 10; default: 6')
    toy.add_argument(
        '--frames',
        type=whole(*FRAMES),
        default=20,
        help=f'key frames of a scene, 2 a second, 2 to 40; fewer than {PLANNED} leave the planning '
        'metrics empty; default: 20',
    )
    toy.add_argument(
        '--image-size',
        type=whole(*PIXELS),
        nargs=2,
        default=(800, 450),
        metavar=('WIDTH', 'HEIGHT'),
        help='pixels, each 32 to 3200; default: 800 450',
    )

    text = commands.add_parser(
        'wikitext2',
        help='WikiText-2 raw, for language models',
        description='Fetch WikiText-2 raw, or copy it from a folder, and check it.',
    )
    text.add_argument('--source', help='folder with wiki.*.raw; default: the Hugging Face hub')
    text.add_argument(
        '--out', default='data/wikitext2', help='folder to write; default: data/wikitext2'
    )
    text.add_argument('--anew', action='store_true', help='write again what is there already')
    args = parser.parse_args(argv)
    if args.command == 'nuscenes':
        check_nuscenes(parser, args)
    elif args.command == 'wikitext2':
        check_wikitext2(parser, args)
    elif args.frames < PLANNED:
        warn(
            f'--frames {args.frames}: planning is measured where six key frames follow, so its metrics '
            f'will be empty; give {PLANNED} or more to have them'
        )
    return args


def check_nuscenes(parser: Parser, args: argparse.Namespace) -> None:
    """End with a folder that can't take the info files, or with tables that aren't there."""
    check_directory(parser, '--out-dir', args.out_dir, new_files=False)
    folder = Path(args.root_path) / args.version
    if not folder.exists() and not os.path.exists(args.out_dir or args.root_path):
        parser.error(
            f'--root-path {args.root_path} holds no nuScenes {args.version}: {folder} does not exist; '
            f'unpack the metadata of {args.version} there'
        )
    if not os.path.isdir(args.canbus):  # even where the info files are there already
        parser.error(
            f'--canbus {args.canbus} does not exist; name the folder that holds can_bus, of the nuScenes '
            'CAN bus expansion'
        )


def check_wikitext2(parser: Parser, args: argparse.Namespace) -> None:
    """End with a folder that can't take the texts, or with one that should have them and isn't there."""
    check_directory(parser, '--out', args.out, new_files=False)
    if args.source and (args.anew or not os.path.exists(args.out)):
        if not os.path.exists(os.path.expanduser(args.source)):
            parser.error(
                f'--source {args.source} has no wiki.valid.raw; name the folder with wiki.*.raw'
            )


def main(args: argparse.Namespace) -> None:
    """Run the tool."""
    if args.command == 'wikitext2':
        from projects.llm.datasets.wikitext2 import prepare_wikitext2

        prepare_wikitext2(args.out, args.source, args.anew)
        return

    from projects.vad.datasets.converter import prepare_nuscenes, prepare_toy

    if args.command == 'nuscenes':
        prepare_nuscenes(args.root_path, args.canbus, args.version, args.out_dir, args.anew)
    else:
        prepare_toy(args.out, args.seed, args.scenes, args.frames, tuple(args.image_size))


if __name__ == '__main__':
    start(parse, main)

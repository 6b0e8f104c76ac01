"""Make data: nuScenes' info files or a small synthetic drive for VAD, WikiText-2 for language models."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.prune_plugin.workflows import cli  # noqa: E402

VERSIONS = ('v1.0-mini', 'v1.0-trainval')


def seed(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of at least 0')
    return int(text)


def parse(argv: Sequence[str] | None):
    """Parse the command line."""
    parser = cli.Parser(description=__doc__)
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
    toy.add_argument('--seed', type=seed, default=0, help='another seed, another drive; default: 0')
    toy.add_argument('--scenes', type=cli.positive, default=6, help='default: 6')
    toy.add_argument(
        '--frames',
        type=cli.positive,
        default=20,
        help='key frames of a scene, 2 a second; default: 20',
    )
    toy.add_argument(
        '--image-size',
        type=cli.positive,
        nargs=2,
        default=(800, 450),
        metavar=('WIDTH', 'HEIGHT'),
        help='pixels; default: 800 450',
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
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool."""
    args = parse(argv)

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
    cli.run(main)

"""Write a checkpoint to hand out: weights in 16 bits, without optimizer, logs and helpers of training."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from arguments import Parser, start  # noqa: E402

DTYPES = ('float16', 'bfloat16', 'float32')


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument('checkpoint', help='of a training or a pruning')
    parser.add_argument('out', help='file to write, .pth')
    parser.add_argument(
        '--dtype', choices=DTYPES, default='float16', help='of the weights; default: float16'
    )
    parser.add_argument(
        '--without',
        nargs='+',
        default=[],
        metavar='BEGINNING',
        help='leave out tensors whose names begin so, e.g. auxiliary.',
    )
    args = parser.parse_args(argv)
    if not Path(args.checkpoint).is_file():
        parser.error(f'checkpoint {args.checkpoint} does not exist; name a .pth file')
    if Path(args.out).suffix != '.pth' or not Path(args.out).parent.is_dir():
        parser.error(f'out {args.out} must be a .pth file in a directory that exists')
    if Path(args.out).exists() and Path(args.out).samefile(args.checkpoint):
        parser.error(f'out {args.out} is the checkpoint itself; name another file')
    return args


def main(args: argparse.Namespace) -> None:
    """Run the tool."""
    import torch

    from projects.prune_plugin.checkpoints.checkpoint_file import load_file, save_file
    from projects.prune_plugin.checkpoints.publish import published

    save_file(
        published(load_file(args.checkpoint), getattr(torch, args.dtype), args.without), args.out
    )
    megabytes = Path(args.out).stat().st_size / 1e6
    print(f'{args.out}: {megabytes:.2f} MB, {args.dtype}')


if __name__ == '__main__':
    start(parse, main)

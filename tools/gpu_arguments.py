"""Flags that choose GPUs: parsed, checked and applied before anything is imported that starts CUDA."""

import argparse
import os
import re
from itertools import takewhile

from arguments import LAUNCHERS, STARTED_BY, Parser, positive, warn

VARIABLE = 'CUDA_VISIBLE_DEVICES'
#: What names a GPU in the variable; CUDA reads it up to the first word that doesn't.
GPU = re.compile(r'\d+|(?:GPU|MIG)-\S+')


def gpu_number(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is not the number of a GPU, 0 or more')
    return int(text)


def add_gpu_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that choose devices."""
    parser.add_argument(
        '--gpus',
        type=positive,
        default=1,
        help='number of GPUs, one for each process that a launcher has started; default: 1',
    )
    parser.add_argument(
        '--gpu-ids',
        type=gpu_number,
        nargs='+',
        help=f'GPUs to use, counted from 0 among those that {VARIABLE} shows, which it narrows; '
        'without the variable among all of this machine',
    )


def choose_devices(parser: Parser, args: argparse.Namespace) -> None:
    """Apply ``--gpus`` and ``--gpu-ids``; several devices need a launcher.

    The CUDA driver reads the variable when it starts, so this comes before torch is imported.
    """
    if args.gpu_ids:
        twice = [number for number in args.gpu_ids if args.gpu_ids.count(number) > 1]
        if twice:
            parser.error(f'--gpu-ids names GPU {twice[0]} twice; name each once')
        show_gpus(parser, args.gpu_ids)
    wanted, count = max(args.gpus, len(args.gpu_ids or [])), processes(args.launcher)
    if count is not None and wanted > count:
        runs = 'none runs' if args.launcher == 'none' else f'{args.launcher} has'
        runs += ' one process' if count == 1 else f' {count} processes'
        start_with = STARTED_BY.get(args.launcher, STARTED_BY['pytorch'])
        warn(
            f'{wanted} devices asked for, but --launcher {runs}: going on with '
            f'{"one" if count == 1 else count}. Start with "{start_with}"',
            args.launcher,
        )


def show_gpus(parser: Parser, gpu_ids: list[int]) -> None:
    """Have CUDA show these GPUs alone.

    What a scheduler hands out stands in the variable: a number counts within that, and the others' GPUs
    stay theirs. Where it hides all GPUs, it goes on doing so.
    """
    before = os.environ.get(VARIABLE)
    if before is None:
        os.environ[VARIABLE] = ','.join(map(str, gpu_ids))
        return
    shown = list(takewhile(GPU.fullmatch, (word.strip() for word in before.split(','))))
    if not shown:
        return
    beyond = [number for number in gpu_ids if number >= len(shown)]
    if beyond:
        one = 'only 0, the one GPU there' if len(shown) == 1 else f'0 to {len(shown) - 1}'
        parser.error(
            f'--gpu-ids {beyond[0]} counts among the GPUs that {VARIABLE}={before} shows; valid '
            f'{"is" if len(shown) == 1 else "are"} {one}'
        )
    os.environ[VARIABLE] = ','.join(shown[number] for number in gpu_ids)


def processes(launcher: str) -> int | None:
    """How many processes run; None in all but the first of them, or if the launcher doesn't say."""
    if launcher == 'none':
        return 1
    rank, count = (os.environ.get(name, '') for name in LAUNCHERS[launcher][:2])
    return int(count) if rank == '0' and count.isdecimal() else None

"""What the command-line tools share: arguments, configs, devices, exit codes."""

import argparse
import errno
import gc
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger, print_log

from ..checkpoints.checkpoint_file import use_safe_loader
from ..common.config_errors import describe_config_error, strip_location_prefix
from ..common.distributed import is_lost_rank, lost_rank_message
from ..common.errors import UserError, first_line
from ..common.fileio import WRITE_ERRNOS, find_write_error, write_error_message

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


def is_first_rank() -> bool:
    """Whether this process is rank 0, told before there is a process group."""
    return os.environ.get('RANK', '0') == '0'


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        """See :class:`argparse.ArgumentParser`."""
        self.exit(2, f'error: {message}\n' if is_first_rank() else None)


class CfgOptions(DictAction):
    """``--cfg-options``: a word without ``=`` is the user's mistake, not ours."""

    def __call__(self, parser, namespace, values, option_string=None):
        """See :class:`mmengine.config.DictAction`."""
        for value in values:
            if '=' not in value:
                parser.error(f'--cfg-options {value!r} is not of the form key=value')
        super().__call__(parser, namespace, values, option_string)


def ratio(text: str) -> float:
    """A fraction removed, in [0, 1)."""
    try:
        value = float(text)
    except ValueError:
        value = float('nan')
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a number in [0, 1), the fraction removed'
        )
    return value


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of at least 1')
    return int(text)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that every tool takes, as in the other OpenMMLab projects."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        default={},
        metavar='KEY=VALUE',
        help='override config entries, e.g. train_dataloader.batch_size=8',
    )
    parser.add_argument(
        '--launcher', choices=LAUNCHERS, default='none', help='how the processes were started'
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=None, help=argparse.SUPPRESS
    )


def add_gpu_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that choose devices."""
    parser.add_argument('--gpus', type=positive, default=1, help='number of GPUs; default: 1')
    parser.add_argument(
        '--gpu-ids', type=int, nargs='+', help='GPUs to use; sets CUDA_VISIBLE_DEVICES'
    )


def add_export_arguments(parser: argparse.ArgumentParser, model: str) -> None:
    """Arguments that write a model for other programs, too.

    Args:
        parser: The tool's.
        model: Which one, for the help.
    """
    parser.add_argument(
        '--save-hf', metavar='DIR', help=f'save {model} as a Hugging Face folder, too'
    )
    forward = (
        "its forward(mode='tensor') alone, which takes what the data preprocessor gives, such as "
        'normalised images, and returns raw outputs, such as logits; the batch size stays open'
    )
    parser.add_argument(
        '--save-onnx', metavar='FILE.onnx', help=f'save {model} as an ONNX file, too: {forward}'
    )
    parser.add_argument(
        '--save-exported',
        metavar='FILE.pt2',
        help='the same as a file of torch.export, for what ONNX cannot say',
    )


def choose_devices(args: argparse.Namespace) -> None:
    """Apply ``--gpus`` and ``--gpu-ids``; several devices need a launcher."""
    if args.gpu_ids:
        os.environ.setdefault('CUDA_VISIBLE_DEVICES', ','.join(map(str, args.gpu_ids)))
    wanted = max(args.gpus, len(args.gpu_ids or []))
    if wanted > 1 and args.launcher == 'none':
        warnings.warn(
            f'{wanted} devices asked for, but --launcher none runs one process: going on with one. '
            'Start with "python -m torch.distributed.run --nproc_per_node=N ... --launcher pytorch"',
            stacklevel=2,
        )


def read_config(path: str, options: dict) -> Config:
    """Read a config file and apply ``--cfg-options``.

    Raises:
        UserError: the file is missing or can't be read as a config.
    """
    if not os.path.isfile(path):
        raise UserError(f'config {path} does not exist; give a .py config file')
    try:
        cfg = Config.fromfile(path)
        if options:
            cfg.merge_from_dict(options)
    except Exception as error:  # a config is a program of the user's: whatever it raises is theirs
        write_error = find_write_error(error)
        if write_error is not None and write_error.errno != errno.EACCES:
            raise  # MMEngine copies a config into a temporary file
        said = f'{type(error).__name__}: {first_line(error)}'
        raise UserError(f'config {path} cannot be read: {said}') from error
    return cfg


def log_world(launcher: str) -> None:
    """Say in the log how many processes run, and on what."""
    import torch
    from mmengine import dist

    if not MMLogger.check_instance_created('mmengine'):
        MMLogger.get_instance('mmengine', log_level='INFO')
    cuda = torch.cuda.is_available()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print_log(
        f'launcher {launcher}, world size {dist.get_world_size()}, '
        f'devices: {", ".join(devices) if cuda else f"cpu ({torch.get_num_threads()} threads)"}',
        'current',
    )


def run(
    main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None
) -> NoReturn:
    """Run a tool: exit code 0, or 2 with one sentence where the user can mend it.

    Errors that are ours keep their traceback. A rank whose partner is gone says so and ends with 1.
    """
    use_safe_loader()
    try:
        main(argv)
        shut_down(together=True)
    except (UserError, KeyError, TypeError) as error:
        ours = isinstance(error, UserError)
        said = strip_location_prefix(first_line(error)) if ours else describe_config_error(error)
        if said is None:
            raise
        if is_first_rank():
            print(f'error: {said}', file=sys.stderr)
        shut_down(together=False)
        sys.exit(2)
    except OSError as error:
        if error.errno not in WRITE_ERRNOS:
            raise
        print(f'error: {write_error_message(error)}', file=sys.stderr)
        shut_down(together=False)
        sys.exit(2)
    except RuntimeError as error:
        if not is_lost_rank(error):
            raise
        print(f'error: {lost_rank_message(error)}', file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def shut_down(together: bool) -> None:
    """Leave the process group, if there is one.

    A DDP model that outlives its group aborts the process, so what nobody holds is freed first.

    Args:
        together: Wait for the other ranks; after an error they may not come.
    """
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        if together:
            torch.distributed.barrier()
        torch.distributed.destroy_process_group()

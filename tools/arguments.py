"""Command lines of the tools: parsed, and checked as far as files tell, before anything is imported.

Nothing here needs more than the standard library, so that ``--help`` and mistakes are answered at once.
"""

import argparse
import errno
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
#: Where each launcher leaves (rank, world size, local rank) in the environment.
LAUNCHERS = {
    'none': (),
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}
#: How each starts several processes.
STARTED_BY = {
    'pytorch': 'python -m torch.distributed.run --nproc_per_node=N ... --launcher pytorch',
    'slurm': 'srun --ntasks=N python ... --launcher slurm',
    'mpi': 'mpirun -np N python ... --launcher mpi',
}
#: Flags that save a traced forward pass, and how the files' names end.
ENDINGS = {'--save-onnx': '.onnx', '--save-exported': '.pt2', '--save-gguf': '.gguf'}
#: Types of the weights of a GGUF file.
GGUF_TYPES = ('f32', 'f16', 'bf16', 'q8_0', 'q4_0')

Parse = Callable[[Sequence[str] | None], argparse.Namespace]


def start(parse: Parse, main: Callable[[argparse.Namespace], None]) -> NoReturn:
    """Parse the command line, and only then import the plugin and run the tool; ends the process.

    Ctrl-C and SIGTERM end it with one line and exit code 130 or 143, as a shell has it.
    """
    args = parse(None)
    interruption = Interruption(advice(args))
    try:
        import_plugin()
        from projects.prune_plugin.workflows import cli

        interruption.at_once = False
        cli.run(main, args)
    except BaseException:  # whatever an interruption has become on its way
        interruption.end()
        raise


class Interruption:
    """Turns Ctrl-C and SIGTERM into one line; forked workers end as usual.

    The signal is raised as KeyboardInterrupt, so that files are cleaned up. Where that gets lost, as in a
    callback of Python's garbage collection, the process ends some seconds later all the same. While
    packages are imported, some of which catch whatever is raised, there is nothing to clean up yet.

    Args:
        advice: What to do afterwards.
    """

    #: Seconds after which the process ends whatever it does.
    PATIENCE = 10.0

    def __init__(self, advice: str):
        self.advice, self.process, self.number, self.at_once = advice, os.getpid(), 0, True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle)

    def handle(self, number: int, frame: Any) -> None:
        """See :func:`signal.signal`."""
        if os.getpid() != self.process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if not self.number:
            self.number = number
            if self.at_once:
                self.end()
            sys.unraisablehook = lambda _: None  # where it gets lost
            timer = threading.Timer(self.PATIENCE, self.end)
            timer.daemon = True
            timer.start()
        raise KeyboardInterrupt

    def end(self) -> None:
        """Say the line on rank 0 and leave, if there was a signal."""
        if not self.number:
            return
        rank = os.environ.get('RANK') or os.environ.get('SLURM_PROCID') or '0'
        if rank == '0':
            text = f'\ninterrupted: nothing half-written is left; {self.advice}'
            print(text, file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(128 + self.number)  # not waiting for other ranks, or for what workers are doing


def advice(args: argparse.Namespace) -> str:
    """What to do after an interruption."""
    if not hasattr(args, 'resume'):
        return 'run it again'
    if hasattr(args, 'fine_tune'):
        return (
            'run it again. --resume goes on with the layers or rounds of a WeightPruner, tools/train.py '
            '--resume with a training'
        )
    return '--resume goes on from the last checkpoint'


def import_plugin() -> None:
    """Have our ``projects`` found, also where a package of that name hides it."""
    sys.path.insert(0, str(ROOT))
    import mm_prune  # noqa: F401


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        """See :class:`argparse.ArgumentParser`; says which rank it is, if there are several."""
        if (
            os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == 'True'
        ):  # ranks can ask what rank 0 says
            import_plugin()
            from projects.prune_plugin.common.rank_errors import say

            say(message, 'pytorch')
            self.exit(2)
        ranks = (os.environ.get(names[0], '0') for names in LAUNCHERS.values() if names)
        rank = next((rank for rank in ranks if rank.isdecimal() and int(rank)), None)
        self.exit(2, f'error: rank {rank}: {message}\n' if rank else f'error: {message}\n')


def warn(message: str, launcher: str = 'none') -> None:
    """Say in one line what is done otherwise than asked for; the first of several processes alone does."""
    names = LAUNCHERS[launcher][:1]
    if all(os.environ.get(name, '0') == '0' for name in names):
        print(f'warning: {message}', file=sys.stderr, flush=True)


class CfgOptions(argparse.Action):
    """``--cfg-options``: keeps the words; :func:`.cli.parse_cfg_options` has MMEngine read them."""

    def __call__(self, parser, namespace, values, option_string=None):
        """See :class:`argparse.Action`."""
        for word in values:
            if '=' not in word:
                parser.error(f'--cfg-options {word!r} is not of the form key=value')
            if (
                '{' not in word
                and 'dict(' not in word
                and has_open_brackets(word.partition('=')[2])
            ):
                parser.error(f'--cfg-options {word!r} has brackets without a counterpart')
        setattr(namespace, self.dest, (*getattr(namespace, self.dest), *values))


def has_open_brackets(value: str) -> bool:
    """Whether the brackets of a value, those inside quotes aside, are unbalanced in a list or tuple."""
    bare = re.sub(r"""'[^']*'|"[^"]*\"""", '', value).replace(' ', '')
    is_sequence = ',' in bare or bare[:1] + bare[-1:] in ('()', '[]')
    return is_sequence and any(bare.count(a) != bare.count(b) for a, b in ('()', '[]'))


# Types


def ratio(text: str) -> float:
    """A fraction removed, in (0, 1)."""
    try:
        value = float(text)
    except ValueError:
        value = float('nan')
    if not 0 < value < 1:
        why = ', and 0 removes nothing' if value == 0 else ''
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a number in (0, 1), the fraction removed{why}'
        )
    return value


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of at least 1')
    return int(text)


# Arguments that several tools take


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that every tool takes, as in the other OpenMMLab projects."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        default=(),
        metavar='KEY=VALUE',
        help='override config entries, e.g. train_dataloader.batch_size=8',
    )
    parser.add_argument(
        '--unsealed',
        action='store_true',
        help='read pruned checkpoints also if they were changed after they were written',
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        '-v', '--verbose', action='store_true', help='show on the terminal what libraries log, too'
    )
    shown.add_argument(
        '-q', '--quiet', action='store_true', help='show only warnings and results, no progress'
    )
    parser.add_argument(
        '--launcher', choices=LAUNCHERS, default='none', help='how the processes were started'
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=None, help=argparse.SUPPRESS
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
    parser.add_argument(
        '--save-gguf', metavar='FILE.gguf', help=f'save {model} as a file for llama.cpp, too'
    )
    parser.add_argument(
        '--gguf-type',
        choices=GGUF_TYPES,
        help='type of its weights; q8_0 and q4_0 take widths of multiples of 32; default: f16',
    )
    forward = (
        "its forward(mode='tensor') alone, which takes what the data preprocessor gives, such as "
        'normalised images, and returns raw outputs, such as logits; the batch size stays open'
    )
    parser.add_argument(
        '--save-onnx', metavar='FILE.onnx', help=f'save {model} as an ONNX file, too: {forward}'
    )
    parser.add_argument(
        '--int8',
        action='store_true',
        help="with --save-onnx: in 8 bits, the ranges of activations taken from the config's data",
    )
    parser.add_argument(
        '--save-exported',
        metavar='FILE.pt2',
        help='the same as a file of torch.export, for what ONNX cannot say',
    )


# Checks; each ends with the sentence that the same mistake gets where a file is read or written


def check_inputs(parser: Parser, args: argparse.Namespace, *checkpoints: str | None) -> None:
    """End with a launcher that has left no word, or a config or a checkpoint that isn't there.

    Args:
        parser: The tool's.
        args: With ``config`` and what :func:`add_common_arguments` adds.
        *checkpoints: Files to read; None is none.
    """
    for name in LAUNCHERS[args.launcher]:
        if name not in os.environ:
            parser.error(
                f'--launcher {args.launcher} needs the environment variable {name}; start with '
                f'"{STARTED_BY[args.launcher]}"'
            )
    if not os.path.isfile(args.config):
        parser.error(f'config {args.config} does not exist; give a .py config file')
    for path in checkpoints:
        if path and not os.path.isfile(path):
            state = 'is a directory' if os.path.isdir(path) else 'does not exist'
            parser.error(f'checkpoint {path} {state}; give a .pth file')


def check_directory(parser: Parser, flag: str, path: str | None, new_files: bool = True) -> None:
    """End if a directory can't be made, or can't be written.

    Args:
        parser: The tool's.
        flag: What names the directory.
        path: As on the command line; None asks nothing.
        new_files: Whether something is written there in any case.
    """
    code = path and refusal(path)
    if code and (new_files or code in (errno.EEXIST, errno.ENOTDIR)):
        why = os.strerror(code)
        parser.error(f'{flag} {Path(path)} cannot be written ({why}); name a writable directory')


def refusal(path: str) -> int | None:
    """The error number that making and filling a directory would end with; None if it would go well."""
    try:
        os.fsencode(path).decode('utf-8')
    except UnicodeDecodeError:
        return errno.EILSEQ
    longest = max(len(os.fsencode(part)) for part in Path(os.path.abspath(path)).parts)
    if longest > os.pathconf(nearest(path), 'PC_NAME_MAX'):
        return errno.ENAMETOOLONG
    if os.path.exists(path) and not os.path.isdir(path):
        return errno.EEXIST
    above = nearest(path)
    if not above.is_dir():
        return errno.ENOTDIR
    if not os.access(above, os.W_OK | os.X_OK):
        return errno.EROFS if os.statvfs(above).f_flag & os.ST_RDONLY else errno.EACCES
    if os.statvfs(above).f_blocks == 0:  # such as /proc, where only a trial tells
        try:
            os.rmdir(tempfile.mkdtemp(dir=above))
        except OSError as error:
            return error.errno
    return None


def nearest(path: str) -> Path:
    """The path, or the nearest one above it that exists."""
    path = Path(os.path.abspath(path))
    return next(folder for folder in (path, *path.parents) if os.path.exists(folder))


def check_exports(parser: Parser, args: argparse.Namespace) -> None:
    """End with what the flags of :func:`add_export_arguments` can't write to."""
    folder = args.save_hf and Path(args.save_hf)
    if folder and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        parser.error(f'--save-hf {folder} already exists; name a new or an empty folder')
    if args.int8 and not args.save_onnx:
        parser.error('--int8 goes with --save-onnx')
    if args.gguf_type and not args.save_gguf:
        parser.error('--gguf-type goes with --save-gguf')
    for flag, path in (
        ('--save-onnx', args.save_onnx),
        ('--save-exported', args.save_exported),
        ('--save-gguf', args.save_gguf),
    ):
        if path is not None:
            check_export_file(parser, flag, Path(path))


def check_export_file(parser: Parser, flag: str, path: Path) -> None:
    """End if ``flag``, one of ``ENDINGS``, can't write ``path``."""
    if path.suffix != ENDINGS[flag]:
        parser.error(f'{flag} {path} must be a file that ends in {ENDINGS[flag]}')
    if path.is_dir():
        parser.error(f'{flag} {path} is a directory; name a file')
    if refusal(str(path.absolute().parent)):
        parser.error(f'{flag} {path} cannot be written; name a file in a writable directory')

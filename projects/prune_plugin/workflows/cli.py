"""What the command-line tools share once their arguments are parsed: configs, devices, exit codes."""

import argparse
import errno
import gc
import inspect
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn, TypeVar

from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger, print_log
from mmengine.runner import Runner

from ..checkpoints import seal
from ..checkpoints.checkpoint_file import use_safe_loader
from ..common import distributed
from ..common.config_errors import describe_config_error, strip_location_prefix
from ..common.config_types import check_types
from ..common.device import check_visible_gpus
from ..common.distributed import is_lost_rank, lost_rank_message
from ..common.errors import UserError, first_line
from ..common.fileio import WRITE_ERRNOS, find_write_error, write_error_message
from ..common.group_settings import dist_cfg_of
from ..common.lazy_types import use_names
from ..common.option_values import check_place, is_literal, parse_value
from ..common.rank_errors import say
from ..common.terminal import Verbosity, set_verbosity, watch

Arguments = TypeVar('Arguments')


def parse_cfg_options(words: Sequence[str]) -> dict[str, Any]:
    """What the ``key=value`` words after ``--cfg-options`` say, read by MMEngine; dicts by us."""
    own = {word.partition('=')[0]: word.partition('=')[2] for word in words}
    own = {key: text for key, text in own.items() if is_literal(text)}
    rest = [word for word in words if word.partition('=')[0] not in own]
    read = argparse.Namespace(options={})
    DictAction((), 'options')(argparse.ArgumentParser(), read, rest)
    return {**read.options, **{key: parse_value(key, text) for key, text in own.items()}}


#: Keys that a config needn't have.
OPTIONAL_KEYS = (
    'prune_cfg',
    'calibration_dataloader',
    'model_wrapper_cfg',
    'custom_imports',
    'tta_model',
)
#: How alike a mistyped key and the one that was meant are, as difflib counts.
ALIKE = 0.86


def check_new_keys(cfg: Config, options: Mapping[str, Any]) -> None:
    """Raise :class:`UserError` for an option whose first key neither the config nor anything else knows."""
    known = dict.fromkeys((*cfg, *OPTIONAL_KEYS, *inspect.signature(Runner).parameters))
    for key in options:
        first = key.partition('.')[0]
        if first in known:
            continue
        meant = get_close_matches(first, known, 1, ALIKE)
        hint = f'did you mean {meant[0]}?' if meant else 'nothing would read it'
        raise UserError(f'--cfg-options {key}: the config has no {first}; {hint}')


def merge(cfg: Config, options: Mapping[str, Any]) -> None:
    """Override config entries; :class:`UserError` for one that the config has no place for."""
    try:
        cfg.merge_from_dict(dict(options))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        for key in options:
            check_place(cfg, key)
        said = f'{type(error).__name__}: {first_line(error)}'
        raise UserError(f'--cfg-options {" ".join(options)} cannot be applied: {said}') from error


def read_config(path: str, options: Sequence[str] = ()) -> Config:
    """Read a config file and apply ``--cfg-options``.

    Args:
        path: The file.
        options: Words ``key=value``.

    Raises:
        UserError: the file is missing or can't be read as a config.
    """
    if not os.path.isfile(path):
        raise UserError(f'config {path} does not exist; give a .py config file')
    try:
        cfg = Config.fromfile(path)
        if options:
            parsed = parse_cfg_options(options)
            check_new_keys(cfg, parsed)
            merge(cfg, parsed)
    except UserError:
        raise
    except SystemExit as error:
        raise UserError(
            f'config {path} ends the program: it calls sys.exit({error.code!r})'
        ) from error
    except Exception as error:  # a config is a program of the user's: whatever it raises is theirs
        write_error = find_write_error(error)
        if write_error is not None and write_error.errno != errno.EACCES:
            raise  # MMEngine copies a config into a temporary file
        # Of a module that can't be imported, MMEngine tells all but the reason.
        reason: BaseException = error
        while isinstance(inner := reason.__cause__ or reason.__context__, ImportError):
            reason = inner
        if (lacking := missing_extra(reason)) is not None:
            raise UserError(f'config {path}: {lacking}') from error
        said = f'{type(reason).__name__}: {first_line(reason)}'
        raise UserError(f'config {path} cannot be read: {said}') from error
    use_names(cfg)
    check_types(cfg)
    return cfg


#: Packages that not every installation has, with the extra that brings them.
EXTRAS = {
    'timm': 'vit', 'transformers': 'llm', 'mmdet': 'mm', 'mmdet3d': 'vad', 'sklearn': 'vit',
    'nuscenes': 'vad', 'onnx': 'export', 'matplotlib': 'plots',
}  # fmt: skip


def missing_extra(error: BaseException) -> str | None:
    """What to install, if an error says that a package isn't there; else None."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    package = error.name.partition('.')[0]
    if package not in EXTRAS:
        return None
    how = f"pip install 'mm-prune[{EXTRAS[package]}]', or make venv"
    return f'it needs the package {package}, which is not installed: {how}'


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or of a GPU; a library that can't be mapped says so too."""
    if isinstance(error, MemoryError) or type(error).__name__ == 'OutOfMemoryError':
        return True
    said = str(error).lower()
    return any(
        part in said for part in ('allocate memory', 'failed to map segment', 'not enough memory')
    )


def start_processes(cfg: Config, launcher: str) -> None:
    """Start the process group as ``env_cfg.dist_cfg`` says, and log how many processes run on what.

    Raises:
        UserError: see :func:`.distributed.init` and :func:`.device.check_visible_gpus`.
    """
    check_visible_gpus()
    distributed.init(launcher, dist_cfg_of(cfg))
    log_world(launcher)


def log_world(launcher: str) -> None:
    """Say in the log how many processes run, and on what."""
    import torch
    from mmengine import dist

    if not MMLogger.check_instance_created('mmengine'):
        MMLogger.get_instance('mmengine', log_level='INFO')
    if not dist.is_main_process():
        return
    cuda = torch.cuda.is_available()
    numbers = os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',')
    devices = [
        f'{numbers[i] if i < len(numbers) and numbers[i] else i}: {torch.cuda.get_device_name(i)}'
        for i in range(torch.cuda.device_count())
    ]
    print_log(
        f'launcher {launcher}, world size {dist.get_world_size()}, '
        f'devices: {", ".join(devices) if cuda else f"cpu ({torch.get_num_threads()} threads)"}',
        'current',
    )


def is_interrupted() -> bool:
    """Whether the tool has been asked to end: what is raised then may only come of that.

    Ctrl-C within a deep recursion, as where configs are parsed, can turn into a RecursionError.
    """
    handler = signal.getsignal(signal.SIGTERM)
    return bool(getattr(getattr(handler, '__self__', None), 'number', 0))


def run(main: Callable[[Arguments], None], args: Arguments) -> NoReturn:
    """Run a tool: exit code 0, or 2 with one sentence where the user can mend it.

    Errors that are ours keep their traceback. A rank whose partner is gone says so and ends with 1. What
    all ranks end with is said once, see :func:`.rank_errors.say`.

    Args:
        main: What the tool does.
        args: What it is given: the parsed command line.
    """
    use_safe_loader()
    seal.Policy.accept_broken = getattr(args, 'unsealed', False)
    launcher = getattr(args, 'launcher', 'none')
    set_verbosity(chosen_verbosity(args))
    watch(MMLogger.get_current_instance())
    try:
        main(args)
        shut_down(together=True)
    except (UserError, KeyError, TypeError) as error:
        if is_interrupted():
            raise
        ours = isinstance(error, UserError)
        said = strip_location_prefix(first_line(error)) if ours else describe_config_error(error)
        if said is None:
            raise
        say(said, launcher)
        shut_down(together=False)
        sys.exit(2)
    except (MemoryError, ImportError) as error:
        said = (
            f'out of memory: {first_line(error)}'
            if is_out_of_memory(error)
            else missing_extra(error)
        )
        if said is None:
            raise
        say(said, launcher)
        shut_down(together=False)
        sys.exit(2)
    except OSError as error:
        if is_out_of_memory(error):
            say(f'out of memory: {first_line(error)}', launcher)
            shut_down(together=False)
            sys.exit(2)
        if error.errno not in WRITE_ERRNOS:
            raise
        say(write_error_message(error), launcher)
        shut_down(together=False)
        sys.exit(2)
    except RuntimeError as error:
        if is_out_of_memory(error):
            say(f'out of memory: {first_line(error)}', launcher)
            shut_down(together=False)
            sys.exit(2)
        if not is_lost_rank(error):
            raise
        print(f'error: {lost_rank_message(error)}', file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def chosen_verbosity(args: Any) -> Verbosity:
    """What ``-v`` and ``-q`` say."""
    if getattr(args, 'verbose', False):
        return Verbosity.ALL
    return Verbosity.RESULT if getattr(args, 'quiet', False) else Verbosity.STEPS


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
            distributed.barrier()
        abort = getattr(torch.distributed.distributed_c10d, '_abort_process_group', None)
        if not together and abort and torch.distributed.get_backend() == 'nccl':
            abort()  # leaving it would wait for what the others are in
        else:
            torch.distributed.destroy_process_group()

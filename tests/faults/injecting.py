"""Runs a tool with a fault in it: ``python injecting.py '{"type": ..., ...}' tools/train.py ...``.

Files are watched by an audit hook, which sees what any Python code in the process opens, renames or
removes, just before it happens.
"""

import ctypes
import errno
import functools
import importlib
import json
import os
import resource
import runpy
import signal
import sys
import time
from pathlib import Path

#: Audit events that change a folder, and which of their arguments are paths.
CHANGES = {
    'open': (0,), 'os.rename': (0, 1), 'os.remove': (0,), 'os.mkdir': (0,), 'os.rmdir': (0,),
    'os.symlink': (1,), 'os.link': (1,), 'os.truncate': (0,),
}  # fmt: skip
#: Those of them that take space.
GROWTH = ('open', 'os.mkdir', 'os.symlink', 'os.link')
FAULTS = {}


def fault(function):
    """Make a fault known by its function's name."""
    FAULTS[function.__name__] = function
    return function


def die() -> None:
    """What ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def watch(folder: str, see) -> None:
    """Call ``see(event, path)`` before anything below ``folder`` changes."""
    root = os.path.abspath(folder)

    def hook(event: str, arguments: tuple) -> None:
        if event not in CHANGES:
            return
        if event == 'open' and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        for place in CHANGES[event]:
            path = arguments[place]
            if isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(root):
                see(event, os.path.relpath(os.path.abspath(path), root))
                return

    sys.addaudithook(hook)


@fault
def note_changes(folder: str, into: str) -> None:
    """No fault: write down every change of the folder, one a line."""
    watch(folder, lambda event, path: os.write(handle, f'{event} {path}\n'.encode()))
    handle = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)


@fault
def kill_at_change(folder: str, number: int) -> None:
    """Die just before the number-th change of the folder, counted from 1."""
    seen = 0

    def count(event: str, path: str) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            die()

    watch(folder, count)


@fault
def kill_at_file(folder: str, name: str, number: int = 1, event: str = 'os.rename') -> None:
    """Die just before the number-th change of this kind to a path with ``name`` in it."""
    seen = 0

    def count(happens: str, path: str) -> None:
        nonlocal seen
        seen += happens == event and name in path
        if seen == number:
            die()

    watch(folder, count)


@fault
def refuse_at_change(folder: str, number: int, code: str) -> None:
    """From the number-th change on, nothing in the folder can be made: the disk is full, say."""
    seen = 0

    def refuse(event: str, path: str) -> None:
        nonlocal seen
        seen += 1
        if seen >= number and event in GROWTH:
            raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)), path)

    watch(folder, refuse)


@fault
def limit_file_size(
    size: int, deadly: bool = False, target: str | None = None, number: int = 1
) -> None:
    """The kernel refuses to let any file grow beyond ``size`` bytes: half of what is written arrives.

    Args:
        size: Bytes.
        deadly: The process dies of it in the middle of the write; otherwise it gets an OSError.
        target: From the call of this function on that has this ``number``; None: at once.
        number: Counted from 1.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if deadly else signal.SIG_IGN)
    limits = resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)
    if target is None:
        resource.setrlimit(*limits)
    else:
        at_call(target, number, lambda: resource.setrlimit(*limits))


def replace(target: str, wrap) -> None:
    """Put ``wrap(original)`` in the place of ``module:name`` or ``module:Class.name``."""
    module, _, path = target.partition(':')
    *owners, name = path.split('.')
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    setattr(owner, name, wrap(getattr(owner, name)))


def at_call(target: str, number: int, act) -> None:
    """Call ``act`` as a function is called for the number-th time."""
    seen = 0

    def wrap(function):
        @functools.wraps(function)
        def counted(*args, **kwargs):
            nonlocal seen
            seen += 1
            if seen == number:
                act()
            return function(*args, **kwargs)

        return counted

    replace(target, wrap)


@fault
def kill_at_call(target: str, number: int = 1) -> None:
    """Die as a function is called for the number-th time."""
    at_call(target, number, die)


@fault
def slow_calls(target: str, seconds: float) -> None:
    """Sleep before every call of a function."""

    def wrap(function):
        @functools.wraps(function)
        def late(*args, **kwargs):
            time.sleep(seconds)
            return function(*args, **kwargs)

        return late

    replace(target, wrap)


@fault
def nan_gradient(parameter: str, number: int) -> None:
    """The number-th gradient that a parameter of this name gets holds a NaN."""
    import torch

    def wrap(build):
        @functools.wraps(build)
        def built(*args, **kwargs):
            model = build(*args, **kwargs)
            for name, tensor in getattr(model, 'named_parameters', tuple)():
                if name == parameter:
                    tensor.register_hook(spoil)
            return model

        return built

    seen = 0

    def spoil(gradient):
        nonlocal seen
        seen += 1
        if seen != number:
            return gradient
        gradient = gradient.clone()
        gradient.view(-1)[0] = torch.nan
        return gradient

    replace('mmengine.registry:MODELS.build', wrap)


@fault
def nan_loss(number: int) -> None:
    """The number-th time that a model computes its losses, they are NaN."""
    seen = 0

    def wrap(function):
        @functools.wraps(function)
        def spoilt(self, losses):
            nonlocal seen
            seen += 1
            factor = float('nan') if seen == number else 1.0
            return function(self, {name: value * factor for name, value in losses.items()})

        return spoilt

    replace('mmengine.model.base_model.base_model:BaseModel.parse_losses', wrap)


@fault
def heed_permissions() -> None:
    """Have permission bits hold for root, too: its right to override them is given up."""

    class Header(ctypes.Structure):
        _fields_ = [('version', ctypes.c_uint32), ('pid', ctypes.c_int)]

    if os.geteuid() == 0:
        libc, header, sets = (
            ctypes.CDLL(None, use_errno=True),
            Header(0x20080522, 0),
            (ctypes.c_uint32 * 6)(),
        )
        if libc.capget(ctypes.byref(header), sets):
            raise OSError(ctypes.get_errno(), 'capget')
        for place in (0, 1, 2):  # effective, permitted, inheritable: CAP_DAC_OVERRIDE, _READ_SEARCH
            sets[place] &= ~0b110
        if libc.capset(ctypes.byref(header), sets):
            raise OSError(ctypes.get_errno(), 'capset')


@fault
def backward_clock(step: float) -> None:
    """``time.time`` jumps back by ``step`` seconds at every call."""
    now, calls = time.time(), 0

    def jumping() -> float:
        nonlocal calls
        calls += 1
        return now - step * calls

    time.time = jumping


def inject(description: dict | None) -> None:
    """Put a fault in place; one with a ``rank`` on that rank alone."""
    description = dict(description or {})
    rank = description.pop('rank', None)
    if description and (rank is None or os.environ.get('RANK') == str(rank)):
        FAULTS[description.pop('type')](**description)


def run(description: dict | None, script: str, arguments: list[str]) -> None:
    """Run a tool with a fault in this process."""
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    inject(description)
    runpy.run_path(script, run_name='__main__')


if __name__ == '__main__':
    run(json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:])

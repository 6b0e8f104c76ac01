"""What a terminal shows of the log: the steps of a run, warnings and results. A log file has all of it."""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import ModuleType, SimpleNamespace

import rich
from mmengine.logging import MMLogger

#: Packages that log how they set themselves up.
CHATTER = ('mmengine', 'mmcv', 'mmdet', 'mmdet3d', 'mmseg', 'mmpretrain', 'timm', 'transformers')
#: Their modules that say how far a run is, and what came of it.
PROGRESS = (
    'mmengine.hooks.logger_hook', 'mmengine.hooks.checkpoint_hook',
    'mmdet.evaluation', 'mmdet3d.evaluation', 'mmseg.evaluation', 'mmpretrain.evaluation',
)  # fmt: skip
#: How lines of others begin that say where a run goes on from.
RESUMED = ('resumed epoch', 'Auto resumed')
#: Warnings of theirs about what no user has written or can mend.
IDLE_WARNING = re.compile(
    r'"FileClient" will be deprecated|"HardDiskBackend" is the alias|\S+ is skipped since its requires_grad'
)
#: What stands between a module that logs and a handler.
LOGGING = ('logging', 'mmengine.logging', __name__)


class Verbosity(IntEnum):
    """How much a terminal shows."""

    RESULT = 0  #: warnings and results
    STEPS = 1  #: and what is being done, with progress bars
    ALL = 2  #: and how libraries set themselves up


class Terminal(logging.Filter):
    """Lets through what a terminal shows; for the handlers of :class:`mmengine.logging.MMLogger`.

    Attributes:
        verbosity: How much that is; None: everything, as in a program that isn't one of the tools.
        hidden: How many bodies of :func:`hidden_from_terminal` are running.
    """

    verbosity: Verbosity | None = None
    hidden = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """See :class:`logging.Filter`."""
        if self.verbosity == Verbosity.ALL:
            return True
        if record.levelno >= logging.WARNING:
            idle = self.verbosity is not None and IDLE_WARNING.match(str(record.msg)) is not None
            return not (idle and is_chatter(speaker()))
        if self.hidden or self.verbosity == Verbosity.RESULT:
            return False
        if self.verbosity is None or str(record.msg).startswith(RESUMED):
            return True
        return not is_chatter(speaker())


#: The one that all handlers share.
TERMINAL = Terminal()


def speaker() -> str:
    """Name of the module whose record a handler is looking at."""
    frame = sys._getframe(1)
    while frame is not None and is_in(frame.f_globals.get('__name__', ''), LOGGING):
        frame = frame.f_back  # type: ignore[assignment]
    return '' if frame is None else frame.f_globals.get('__name__', '')


def is_chatter(module: str) -> bool:
    """Whether what a module logs is only for the log file."""
    return is_in(module, CHATTER) and not is_in(module, PROGRESS)


def is_in(module: str, packages: tuple[str, ...]) -> bool:
    """Whether a module is one of ``packages``, or lies in one."""
    return any(module == name or module.startswith(f'{name}.') for name in packages)


def set_verbosity(verbosity: Verbosity) -> None:
    """Choose what terminals show from now on; :func:`watch` says of which logger."""
    TERMINAL.verbosity = verbosity
    rich.get_console().quiet = verbosity == Verbosity.RESULT  # progress bars


def watch(logger: MMLogger) -> MMLogger:
    """Have a logger's terminal show what was chosen; returns the logger."""
    for handler in logger.handlers:
        if type(handler) is logging.StreamHandler and TERMINAL not in handler.filters:
            handler.addFilter(TERMINAL)
    return logger


@contextmanager
def hidden_from_terminal() -> Iterator[None]:
    """Keep what is logged below WARNING while the body runs for the log file."""
    watch(MMLogger.get_current_instance())
    TERMINAL.hidden += 1
    try:
        yield
    finally:
        TERMINAL.hidden -= 1


@contextmanager
def shown_on_terminal() -> Iterator[None]:
    """Show what is logged while the body runs also within :func:`hidden_from_terminal`."""
    hidden, TERMINAL.hidden = TERMINAL.hidden, 0
    try:
        yield
    finally:
        TERMINAL.hidden = hidden


@contextmanager
def without_bars(module: ModuleType) -> Iterator[None]:
    """Keep a library's progress bars off the terminal while the body runs, unless it shows all.

    Args:
        module: The library's, which has imported ``tqdm``.
    """
    tqdm = module.tqdm
    if TERMINAL.verbosity not in (None, Verbosity.ALL):
        module.tqdm = SimpleNamespace(tqdm=lambda items, *_, **__: items)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.tqdm = tqdm  # type: ignore[attr-defined]

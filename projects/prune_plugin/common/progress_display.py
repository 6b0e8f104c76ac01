"""What is seen of a run's progress: a bar in a terminal, and lines in a log."""

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol

import rich
from mmengine.logging import MMLogger, print_log
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from .terminal import hidden_from_terminal, shown_on_terminal

#: Seconds between two lines of a log, at least.
APART = 1.0


class Progress(Protocol):
    """What there is to show; see :class:`.progress.Run`."""

    steps: list[Any]
    what: str

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""

    @property
    def number(self) -> int:
        """How many steps have begun."""

    def left(self) -> float | None:
        """Seconds to the end."""

    def fraction(self) -> float | None:
        """The part that is over."""


def duration(seconds: float) -> str:
    """A time as people say it: to the second below two minutes, then to the minute."""
    whole = round(seconds)
    if whole < 120:
        return f'{whole} s'
    if whole < 7200:
        return f'{whole / 60:.0f} min'
    return f'{whole // 3600} h {whole % 3600 // 60} min'


class Display:
    """Lines in the log, one per tenth of the run; on a terminal with a bar only the log file has them.

    Args:
        hidden: Whether the terminal doesn't show the lines.
    """

    def __init__(self, hidden: bool = False):
        self.hidden, self.tenths, self.last = hidden, 0, 0.0

    def show(self, run: Progress) -> None:
        """Say how far a run is, if there is something new to say."""
        fraction, left = run.fraction(), run.left()
        if fraction is None or left is None:
            return
        tenths = int(10 * fraction)
        if tenths <= self.tenths or tenths >= 10 or run.elapsed - self.last < APART:
            return
        self.tenths, self.last = tenths, run.elapsed
        self.log(f'{10 * tenths} % done, {run.what}: about {duration(left)} left')

    def finish(self, run: Progress) -> None:
        """Say that a run is over."""
        if run.steps:
            self.log(f'100 % done in {duration(run.elapsed)}')

    def log(self, text: str) -> None:
        """Log a line."""
        with hidden_from_terminal() if self.hidden else shown_on_terminal():
            print_log(text, 'current')

    def print(self, text: str) -> None:
        """Print a line."""
        rich.get_console().print(text, soft_wrap=True, markup=False, highlight=False)


class TerminalBar(Display):
    """A bar at the bottom of a terminal: the step, how far the run is, and the time that is left."""

    def __init__(self) -> None:
        super().__init__(hidden=True)
        self.run: Progress | None = None
        self.furthest = 0.0

    def show(self, run: Progress) -> None:
        """See :class:`Display`."""
        self.run = run
        super().show(run)

    def __rich__(self) -> Table | str:
        """The bar as it is now."""
        run = self.run
        if run is None or not run.steps:
            return ''
        fraction, left = run.fraction(), run.left()
        self.furthest = max(self.furthest, fraction or 0.0)
        bar = ProgressBar(1.0, self.furthest, width=20, pulse=fraction is None)
        line = Table.grid(padding=(0, 1))
        line.add_row(
            f'step {run.number} of {len(run.steps)}: {run.what}',
            bar,
            '' if fraction is None else f'{100 * self.furthest:.0f} %',
            duration(run.elapsed) if left is None else f'about {duration(left)} left',
        )
        return line


@contextmanager
def display() -> Iterator[Display]:
    """What shows a run: a bar where there is a terminal to draw it on, unless it is to be quiet."""
    console = rich.get_console()
    if console.quiet or not (console.is_interactive and console.file.isatty()):
        yield Display()
        return
    shown = TerminalBar()
    live = Live(get_renderable=lambda: shown.__rich__(), refresh_per_second=4, transient=True)
    with live, lines_above_bar():
        yield shown


@contextmanager
def lines_above_bar() -> Iterator[None]:
    """Have loggers write where a bar has taken the place of the terminal; workers write as before."""
    handlers = [
        handler
        for logger in MMLogger._instance_dict.values()
        for handler in logger.handlers
        if type(handler) is logging.StreamHandler
    ]
    streams = [(handler, handler.stream) for handler in handlers]
    for handler, stream in streams:
        for proxy in (sys.stdout, sys.stderr):
            if isinstance(proxy, FileProxy) and proxy.rich_proxied_file is stream:
                handler.setStream(proxy)
    watch_forks()
    try:
        yield
    finally:
        for handler, stream in streams:
            handler.setStream(stream)


@cache
def watch_forks() -> None:
    """Call :func:`plain_streams` in all workers that are forked from now on."""
    os.register_at_fork(after_in_child=plain_streams)


def plain_streams() -> None:
    """In a forked worker: what it prints goes to the terminal itself.

    The thread that draws the bar may hold a lock at the moment of the fork, and isn't there any more.
    """
    for name in ('stdout', 'stderr'):
        stream: Any = getattr(sys, name)
        if isinstance(stream, FileProxy):
            plain: io.TextIOBase = stream.rich_proxied_file  # type: ignore[assignment]
            setattr(sys, name, plain)
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            if isinstance(getattr(handler, 'stream', None), FileProxy):
                handler.stream = handler.stream.rich_proxied_file

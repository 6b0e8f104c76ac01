"""The progress of a whole run: its steps in one bar, which the loops inside of them move on.

A loop asks for a :func:`Bar`, whoever calls it. Within :func:`run_progress` it moves the run's bar;
without, as where the plugin is called from other programs, it has a bar of its own.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

from mmengine import dist
from rich.progress import Progress

from .progress_display import Display, display
from .time_left import Step, seconds_left

Item = TypeVar('Item')


class Run:
    """The steps of a run, on rank 0.

    Args:
        display: What shows them.
        clock: Gives seconds.

    Attributes:
        steps: All that are expected, and those that came unexpected.
        current: The one that is running; None between two.
        what: What is being done, in a few words.
    """

    def __init__(self, display: Display, clock: Callable[[], float] = time.perf_counter):
        self.display, self.clock, self.start = display, clock, clock()
        self.steps: list[Step] = []
        self.current: Step | None = None
        self.began, self.what = 0.0, ''

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self.clock() - self.start

    def left(self) -> float | None:
        """Seconds to the end, as far as they can be told."""
        if self.current is not None:
            self.current.spent = self.clock() - self.began
        return seconds_left(self.steps)

    def fraction(self) -> float | None:
        """The part of the whole time that is over; None as long as nobody can tell."""
        left = self.left()
        if left is None:
            return None
        whole = self.elapsed + left
        return self.elapsed / whole if whole > 0 else 0.0

    @property
    def number(self) -> int:
        """How many steps have begun."""
        return sum(step.done >= 1 or step is self.current for step in self.steps)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """The next step of this name; within another step nothing of its own."""
        if self.current is not None:
            yield
            return
        waiting = (step for step in self.steps if step.name == name and not step.done)
        step = next(waiting, None)
        if step is None:
            step = self.another(name)
            self.steps.append(step)
        self.current, self.began, self.what = step, self.clock(), name
        self.display.show(self)
        try:
            yield
        finally:
            step.spent, step.done, self.current = self.clock() - self.began, 1.0, None
            self.display.show(self)

    def another(self, name: str) -> Step:
        """A step like the last of its name, yet to come."""
        alike = [step for step in self.steps if step.name == name]
        return replace(
            alike[-1] if alike else Step(name), done=0.0, spent=0.0, first=None, last=None
        )

    def part(self, passes: float) -> float:
        """Which part of the current step a loop of so many forward passes is; 0: they aren't known."""
        step = self.current
        if step is None:
            return 0.0
        if step.loops == 1:
            step.passes = passes or step.passes  # it knows better than what was expected of it
            return 1.0
        return min(passes / step.passes, 1.0) if passes and step.passes else 1 / step.loops

    def advance(self, part: float) -> None:
        """A part of the current step, in [0, 1], is done."""
        if self.current is None:
            return
        step = self.current
        step.done = min(step.done + part, 1 - 1e-6)  # its end is what ends it
        step.last = step.done, self.clock() - self.began
        step.first = step.first or step.last
        self.display.show(self)


#: The one that is going on, on rank 0.
RUNS: list[Run] = []


@contextmanager
def run_progress() -> Iterator[None]:
    """Show the body as one run: with a bar in a terminal, else with a line in the log per tenth.

    On rank 0 alone, and nothing within another run. See :func:`.terminal.set_verbosity` for silence.
    """
    if RUNS or not dist.is_main_process():
        yield
        return
    with display() as shown:
        RUNS.append(Run(shown))
        try:
            yield
            shown.finish(RUNS[-1])
        finally:
            RUNS.clear()


def expect(steps: Iterable[Step]) -> None:
    """Say which steps the run will have, beside those that are known."""
    for run in RUNS:
        run.steps.extend(steps)


def expect_more(name: str, times: int) -> None:
    """Say that a step comes so many more times than is known."""
    for run in RUNS:
        run.steps.extend(run.another(name) for _ in range(times))


def forget(name: str, times: int) -> None:
    """Say that a step comes so many times less: what it would do is known."""
    for run in RUNS:
        waiting = [step for step in run.steps if step.name == name and not step.done]
        for step in waiting[:times]:
            run.steps = [other for other in run.steps if other is not step]


def step(name: str) -> AbstractContextManager[None]:
    """The body is a step of the run, if there is one."""
    return RUNS[-1].step(name) if RUNS else nullcontext()


def say(text: str) -> None:
    """Print a line above the run's bar."""
    for run in RUNS:
        run.display.print(text)


class PartOfRun:
    """Does for a run what :class:`rich.progress.Progress` does for a bar of its own."""

    def add_task(self, what: str, total: float | None, passes: float = 0.0) -> float:
        """Begin a loop; see :func:`Bar`.

        Args:
            what: What is done, in a few words.
            total: Times that :meth:`advance` will be called; None: nobody knows.
            passes: Forward passes of one sample in the whole loop.

        Returns:
            The part of the step that one of these times is.
        """
        RUNS[-1].what = what
        return RUNS[-1].part(passes) / total if total else 0.0

    def advance(self, task: float, times: float = 1) -> None:
        """So many of them are done."""
        RUNS[-1].advance(task * times)


def part_of_run() -> PartOfRun | None:
    """What moves the run's bar; None without a run, or on another rank than 0."""
    return PartOfRun() if RUNS else None


class OwnBar(Progress):
    """A bar of a loop's own."""

    def add_task(self, what: str, total: float | None = None, passes: float = 0.0, **more: Any):  # type: ignore[override]
        """See :meth:`PartOfRun.add_task`."""
        return super().add_task(what, total=total, **more)


def Bar(disable: bool = False) -> AbstractContextManager[Any]:
    """The progress of a loop: ``task = bar.add_task(what, total)``, then ``bar.advance(task)``.

    Args:
        disable: No bar of its own; within a run it moves the run's all the same.
    """
    part = part_of_run()
    if part is not None:
        return nullcontext(part)
    return OwnBar(disable=disable or not dist.is_main_process())


def track(
    items: Iterable[Item], what: str, total: int, passes: float = 0.0, disable: bool = False
) -> Iterator[Item]:
    """Go through items with a :func:`Bar`.

    Args:
        items: They.
        what: See :meth:`PartOfRun.add_task`, like ``total`` and ``passes``.
        total: How many there are.
        passes: Of all of them.
        disable: See :func:`Bar`.
    """
    with Bar(disable) as bar:
        task = bar.add_task(what, total=total, passes=passes)
        for item in items:
            yield item
            bar.advance(task)

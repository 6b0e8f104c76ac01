"""The progress of several evaluations in a row."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmengine import dist
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ...common.progress import part_of_run, say


@contextmanager
def evaluation_bar(total: int, title: str) -> Iterator[Callable[[str], None]]:
    """A progress bar with the time left, on rank 0; within a run, which has one, only the lines.

    Args:
        total: Evaluations to come.
        title: What is done.

    Yields:
        A function to call after each evaluation, with a line to print; none if it is empty.
    """
    if part_of_run() is not None:
        yield lambda text: say(text) if text else None
        return
    main = dist.is_main_process()
    bar = Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        disable=not (main and total),
        speed_estimate_period=3600,
    )
    with bar:
        task = bar.add_task('', total=total)

        def show(text: str) -> None:
            bar.advance(task)
            if main and text:
                bar.console.print(text, soft_wrap=True, markup=False, highlight=False)

        yield show

"""How long a run still takes, by its steps: those that are over tell of those to come."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Step:
    """A step of a run.

    Attributes:
        name: Steps of equal names are alike: each tells how long the others take.
        passes: Forward passes of one sample that it makes, as far as they are known; by these it compares
            with steps of other names. A backward pass counts as two.
        seconds: What it takes beside the passes, as a first guess; None: nobody knows.
        amount: How much of it there is, without passes, compared with others of its name (such as epochs).
        loops: How many loops it has that say how far they are.
        done: The part of it that is over, in [0, 1].
        spent: Seconds that it has taken so far.
        first: ``(done, spent)`` when a loop first said how far it is: until then it got ready.
        last: The same when it last said so.
    """

    name: str
    passes: float = 0.0
    seconds: float | None = 0.0
    amount: float = 1.0
    loops: int = 1
    done: float = 0.0
    spent: float = 0.0
    first: tuple[float, float] | None = None
    last: tuple[float, float] | None = None

    @property
    def work(self) -> float:
        """How much of it there is, compared with others of its name."""
        return self.passes or self.amount

    @property
    def pace(self) -> float | None:
        """Seconds that its loops would take for the whole of it, without getting ready; None: not known."""
        if self.first is None or self.last is None or self.last[0] <= self.first[0]:
            return None
        return (self.last[1] - self.first[1]) / (self.last[0] - self.first[0])


def per_work(steps: Sequence[Step]) -> float | None:
    """Seconds for one unit of work in steps of one name, from their beginning to their end."""
    known = [s for s in steps if s.done >= 1 or s.pace is not None]
    whole = sum(s.spent + (1 - s.done) * (s.pace or 0.0) for s in known)
    return whole / sum(s.work for s in known) if known else None


def per_pass(steps: Sequence[Step]) -> float | None:
    """Seconds for one forward pass of one sample, whatever the steps; getting ready doesn't count."""
    known = [(s.passes, s.pace) for s in steps if s.passes and s.pace is not None]
    if not known:
        return None
    return sum(pace for _, pace in known) / sum(passes for passes, _ in known)


def expected_seconds(step: Step, steps: Sequence[Step]) -> float | None:
    """What a step takes from its beginning to its end; None if nothing tells.

    Those of its name tell best. Before any of them is known, a pass takes as long as in all other steps.
    """
    own = per_work([other for other in steps if other.name == step.name])
    if own is not None:
        return own * step.work
    if step.seconds is None:
        return None
    rate = per_pass(steps) if step.passes else 0.0
    return None if rate is None else step.seconds + rate * step.passes


def rest(step: Step, steps: Sequence[Step]) -> float | None:
    """What is left of a step; None if nothing tells."""
    if step.done >= 1:
        return 0.0
    if step.pace is not None and step.last is not None:
        return max(step.pace * (1 - step.done) - (step.spent - step.last[1]), 0.0)
    whole = expected_seconds(step, steps)
    return None if whole is None else max(whole - step.spent, 0.0)


def seconds_left(steps: Sequence[Step]) -> float | None:
    """What is left of a run: the rest of the step that is running, and all that haven't begun.

    Args:
        steps: All of them, in any order.

    Returns:
        Seconds, at least 0; None as long as nothing tells of one of the steps.
    """
    parts = [rest(step, steps) for step in steps]
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None

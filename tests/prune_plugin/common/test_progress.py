"""One bar for a whole run: by a clock of our own, and on a terminal of our own."""

import io

import pytest
import rich
from rich.console import Console

from projects.prune_plugin.common import progress, progress_display
from projects.prune_plugin.common.progress import (
    Bar,
    Run,
    expect,
    expect_more,
    forget,
    run_progress,
    step,
    track,
)
from projects.prune_plugin.common.progress_display import Display, duration
from projects.prune_plugin.common.time_left import Step
from projects.prune_plugin.common.timing import timed


@pytest.fixture
def lines(monkeypatch):
    """What is logged."""
    said: list[str] = []
    monkeypatch.setattr(progress_display, 'print_log', lambda text, *_: said.append(text))
    return said


class Simulation:
    """A run by a clock that moves only when it is told to.

    Attributes:
        estimates: Per moment how much of the time was over, and the estimate of the whole time.
    """

    def __init__(self, monkeypatch, lines):
        self.now, self.estimates, self.said = 0.0, [], lines
        self.run = Run(Display(), lambda: self.now)
        monkeypatch.setattr(progress, 'RUNS', [self.run])

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.run.display.show(self.run)
        self.estimates.append((self.now, self.run.left()))

    def loop(
        self, name: str, samples: int, seconds: float, passes: float = 1.0, before=0.0
    ) -> None:
        """A step that goes through data, after ``before`` seconds of getting ready."""
        with step(name):
            self.wait(before)
            for _ in track(range(samples), f'{name} it', samples, passes * samples):
                self.wait(seconds)

    def worst(self) -> float:
        """By how much the estimate of the whole time is wrong at most, after its first third."""
        whole = self.now
        late = [(now, left) for now, left in self.estimates if now > whole / 3]
        assert late and all(left is not None for _, left in late)
        return max(abs(now + left - whole) / whole for now, left in late)


@pytest.fixture
def simulated(monkeypatch, lines):
    """A :class:`Simulation`."""
    return Simulation(monkeypatch, lines)


def test_the_estimate_holds_within_a_third_after_a_third(simulated):
    """Calibration, two evaluations (the second of a faster model), refitting, timing, saving."""
    steps = [Step('load', seconds=5.0), Step('calibrate', 3 * 64.0), Step('evaluate', 200.0)]
    steps += [Step('compensate', 64.0), Step('profile', seconds=6.0), Step('evaluate', 200.0)]
    expect([*steps, Step('save', seconds=2.0)])
    with step('load'):
        simulated.wait(8)
    simulated.loop('calibrate', 64, 0.35, passes=3, before=2)
    simulated.loop('evaluate', 200, 0.12, before=3)
    simulated.loop('compensate', 12, 1.0)
    with step('profile'):
        simulated.wait(6)
    simulated.loop('evaluate', 200, 0.08, before=3)
    with step('save'):
        simulated.wait(4)
    assert simulated.worst() < 0.3
    tenths = [int(line.partition(' %')[0]) for line in simulated.said]
    assert tenths == sorted(set(tenths)) and len(tenths) >= 6
    assert all('left' in line for line in simulated.said)


def test_rounds_of_training(simulated):
    """A training is only known once one has begun; those after it take as long, by their epochs."""
    rounds = [Step('prune', 10.0), Step('evaluate', 50.0), Step('train', seconds=None, amount=2.0)]
    expect(Step(s.name, s.passes, s.seconds, s.amount) for _ in range(4) for s in rounds)
    for _ in range(4):
        simulated.loop('prune', 10, 0.2)
        simulated.loop('evaluate', 50, 0.1)
        with step('train'), Bar() as bar:
            task = bar.add_task('training', 100)
            for _ in range(100):
                simulated.wait(0.5)
                bar.advance(task)
    assert simulated.worst() < 0.05


def test_what_comes_unexpected_is_like_the_last_of_its_name(simulated):
    expect([Step('calibrate', 30.0), Step('evaluate', 10.0)])
    expect_more('calibrate', 1)
    simulated.loop('calibrate', 10, 1.0, passes=3)
    assert simulated.run.left() == pytest.approx(10 + 10 / 3, rel=1e-4)
    forget('calibrate', 1)
    assert simulated.run.left() == pytest.approx(10 / 3, rel=1e-4)
    simulated.loop('calibrate', 10, 1.0, passes=3)
    assert [s.name for s in simulated.run.steps] == ['calibrate', 'evaluate', 'calibrate']


def test_loops_of_one_step_share_it(simulated):
    expect([Step('search', 30.0, loops=3)])
    with step('search'):
        for _ in track(range(10), 'trial', 10, passes=10):
            simulated.wait(1)
        assert simulated.run.steps[0].done == pytest.approx(1 / 3)
        assert simulated.run.left() == pytest.approx(20)
        with step('evaluate'):  # within a step: nothing of its own
            simulated.wait(1)
    assert [s.name for s in simulated.run.steps] == ['search']


def test_a_timed_step_is_a_step_of_the_run(simulated):
    with timed({}, 'slim'):
        simulated.wait(2)
    assert [(s.name, s.done, s.spent) for s in simulated.run.steps] == [('slim', 1, 2)]


def test_lines_name_what_is_done_and_how_long_it_takes(simulated):
    expect([Step('evaluate', 10.0)])
    simulated.loop('evaluate', 10, 60)
    assert simulated.said[0] == '20 % done, evaluate it: about 8 min left'
    assert simulated.said[-1].startswith('90 % done')
    simulated.run.display.finish(simulated.run)
    assert simulated.said[-1] == '100 % done in 10 min'


def test_many_tenths_at_once_are_one_line(simulated):
    expect([Step('evaluate', 100.0)])
    simulated.loop('evaluate', 100, 0.02)
    assert len(simulated.said) <= 2


@pytest.mark.parametrize(
    ('seconds', 'said'), [(0.4, '0 s'), (119, '119 s'), (150, '2 min'), (7260, '2 h 1 min')]
)
def test_durations(seconds, said):
    assert duration(seconds) == said


class Tty(io.StringIO):
    """A terminal that remembers."""

    def isatty(self):
        """It is one."""
        return True


def shown_by(monkeypatch, file, quiet=False):
    """What a run of two steps writes to a file."""
    console = Console(file=file, force_terminal=file.isatty(), width=100, quiet=quiet)
    monkeypatch.setattr(rich, '_console', console)
    with run_progress():
        expect([Step('load', seconds=1.0), Step('evaluate', 4.0)])
        with step('load'):
            pass
        with step('evaluate'):
            for _ in track(range(4), 'evaluating dense', 4, 4):
                progress.RUNS[0].display.print('a line')
                if console._live_stack:
                    console._live_stack[0].refresh()
    return file.getvalue()


def test_a_terminal_has_a_bar(monkeypatch, lines):
    said = shown_by(monkeypatch, Tty())
    assert 'step 2 of 2: evaluating dense' in said and 'left' in said and said.count('a line') == 4
    assert lines == ['100 % done in 0 s']  # for the log file


def test_a_pipe_has_lines_and_no_bar(monkeypatch, lines):
    said = shown_by(monkeypatch, io.StringIO())
    assert said == 4 * 'a line\n'
    assert lines == ['100 % done in 0 s']


def test_quiet(monkeypatch, lines):
    assert shown_by(monkeypatch, Tty(), quiet=True) == ''


def test_only_rank_0_has_a_run(monkeypatch, lines):
    monkeypatch.setattr(progress.dist, 'is_main_process', lambda: False)
    with run_progress():
        assert not progress.RUNS
        assert list(track(range(3), 'it', 3)) == [0, 1, 2]
    assert not lines


def test_a_run_that_fails_leaves_nothing(monkeypatch, lines):
    with pytest.raises(ValueError), run_progress(), step('load'):
        raise ValueError
    assert not progress.RUNS and not lines

"""How long a run still takes: against runs whose steps are known."""

import pytest

from projects.prune_plugin.common.time_left import Step, expected_seconds, seconds_left


def running(name: str, passes: float, done: float, spent: float, first=(0.0, 0.0)) -> Step:
    """A step in the middle of its loop."""
    return Step(name, passes, done=done, spent=spent, first=first, last=(done, spent))


def test_a_step_that_runs_goes_on_as_its_loop_has_begun():
    assert seconds_left([running('calibrate', 100, 0.25, 5)]) == pytest.approx(15)
    # 10 seconds until the first of ten batches was over, then one a second
    assert seconds_left([running('calibrate', 100, 0.5, 14, (0.1, 10))]) == pytest.approx(5)


def test_after_the_first_batch_others_tell_more():
    first = running('train', 0, 0.1, 10, (0.1, 10))
    first.seconds = None
    assert seconds_left([first]) is None  # how long it took to get ready isn't known
    first = running('evaluate', 100, 0.1, 10, (0.1, 10))
    assert seconds_left([Step('evaluate', 100, done=1, spent=20), first]) == pytest.approx(10)


def test_a_step_of_the_same_name_takes_as_long_by_its_work():
    over = Step('evaluate', 200, done=1, spent=10)
    assert seconds_left([over, Step('evaluate', 100)]) == pytest.approx(5)
    assert seconds_left([Step('train', amount=2, done=1, spent=8), Step('train', amount=3)]) == 12


def test_passes_compare_steps_of_different_names():
    half = running('calibrate', 300, 0.5, 15)  # 0.1 s a pass
    assert seconds_left([half, Step('evaluate', 50)]) == pytest.approx(15 + 5)
    assert expected_seconds(Step('evaluate', 50, seconds=2), [half]) == pytest.approx(7)


def test_guesses_hold_until_something_is_known():
    assert seconds_left([Step('save', seconds=2)]) == 2
    assert seconds_left([Step('save', seconds=2, spent=0.5)]) == 1.5  # begun, and no loop in it
    assert seconds_left([Step('save', seconds=2, spent=5)]) == 0
    known = [Step('save', seconds=2, done=1, spent=9), Step('save', seconds=2)]
    assert seconds_left(known) == 9


@pytest.mark.parametrize('step', [Step('evaluate', 10), Step('train', seconds=None)])
def test_without_anything_to_tell_by_there_is_no_estimate(step):
    assert seconds_left([Step('load', seconds=1), step]) is None


def test_nothing_left():
    assert seconds_left([]) == 0
    assert seconds_left([Step('load', done=1, spent=3)]) == 0

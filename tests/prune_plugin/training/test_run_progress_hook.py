"""A training moves the bar of the run that it is a part of."""

import pytest
import toy

from projects.prune_plugin.common import progress
from projects.prune_plugin.common.progress import expect, step
from projects.prune_plugin.common.progress_display import Display
from projects.prune_plugin.common.time_left import Step
from projects.prune_plugin.training.hooks.run_progress_hook import RunProgressHook


@pytest.fixture
def run(monkeypatch):
    """A run, and how far its training was at each iteration."""
    current = progress.Run(Display(hidden=True))
    monkeypatch.setattr(progress, 'RUNS', [current])
    monkeypatch.setattr(current.display, 'show', lambda run: None)
    return current


def test_every_iteration_counts_until_the_end(run, tmp_path, monkeypatch):
    far = []
    advance = run.advance
    monkeypatch.setattr(run, 'advance', lambda part: (advance(part), far.append(run.current.done)))
    runner = toy.runner(tmp_path, epochs=2)
    runner.register_hook(RunProgressHook())
    expect([Step('train', seconds=None, amount=2.0)])
    with step('train'):
        runner.train()
    assert far == sorted(far) and len(far) >= runner.max_iters
    assert far[-1] == pytest.approx(1, abs=1e-3)
    assert run.left() == 0


def test_without_a_run_it_does_nothing(tmp_path):
    runner = toy.runner(tmp_path, epochs=1)
    runner.register_hook(RunProgressHook())
    runner.train()
    assert not progress.RUNS

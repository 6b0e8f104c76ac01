"""Whatever stands in ``prune_cfg``: it works, or it is a :class:`UserError` that names the key."""

import signal
from contextlib import contextmanager
from copy import deepcopy
from functools import cache

import pytest
import torch
from config_blocks import OWN, shipped, spoilt
from hypothesis import event, given, settings
from hypothesis import strategies as st
from mixed_model import FuzzedModel, samples
from torch import nn

from projects.prune_plugin import UserError, build_pruner
from projects.prune_plugin.calibration.data import CalibrationData

pytestmark = pytest.mark.properties
#: Seconds after which a block is taken to hang.
PATIENCE = 20


@cache
def dense() -> nn.Module:
    torch.manual_seed(0)
    return FuzzedModel().eval()


def data(settings) -> CalibrationData:
    loader = dict(dataset=samples(), collate_fn=dict(type='default_collate'))
    return CalibrationData(loader, **settings.sampling)


@cache
def valid_blocks() -> list[dict]:
    return [*OWN, *shipped()]


@contextmanager
def limited_time():
    """Raise :class:`TimeoutError` in what takes longer than :data:`PATIENCE`."""

    def stop(number, frame):
        raise TimeoutError(f'no end after {PATIENCE} s')

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def apply(block: dict) -> None:
    pruner, model = build_pruner(block), deepcopy(dense())
    if hasattr(pruner.budget, 'seconds'):  # an hour is a valid answer, too
        pruner.budget.seconds = min(pruner.budget.seconds, 0.01)
    pruner.check(model, data)
    plan = pruner.plan_from(model, pruner.score(model, data))  # as a loop plans, too
    pruner.apply(model, plan, data)
    with torch.no_grad():
        model(torch.ones(1, 3, 4, 4))


@settings(max_examples=10 * settings.default.max_examples)
@given(st.data())
def test_any_block_works_or_names_the_key(draws):
    block, changed = draws.draw(spoilt(valid_blocks()))
    untouched = repr(block)
    try:
        with limited_time():
            apply(block)
        event('works')
    except UserError as error:
        said = str(error)
        assert '\n' not in said
        assert 'prune_cfg' in said or any(str(key) in said for path in changed for key in path)
    assert repr(block) == untouched


def test_the_blocks_are_valid():
    """What is spoilt above ends well as it is; of the shipped ones, where the model has the units."""
    for block in OWN:
        apply(block)
    assert len(shipped()) >= 10
    for block in shipped():
        build_pruner(block)

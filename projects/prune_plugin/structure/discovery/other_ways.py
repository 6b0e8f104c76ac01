"""Ways to run a model that an example in evaluation mode doesn't show: in training, on more samples."""

import inspect
import sys
from collections.abc import Iterator, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from ..unit_group import UnitGroup
from .proof import Holder, Subject

#: What draws numbers or looks at the whole batch while training, whatever the widths are.
OF_TRAINING = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._NormBase,
)


@dataclass
class Way:
    """A way to run a copy of a model.

    Attributes:
        subject: What is tried.
        name: How it is run, for reasons; empty for the example as it is.
        compared: Whether outputs are compared; else, where numbers are drawn, only whether it runs.
    """

    subject: Subject
    name: str = ''
    compared: bool = True

    def difference(self, groups: Sequence[UnitGroup]) -> str:
        """Why the groups can't go together, or nothing."""
        reason = self.subject.difference(groups, 0)
        if reason and not self.compared and self.subject.error is None:
            return ''
        return f'{self.name}: {reason}' if reason and self.name else reason


def other_ways(subject: Subject) -> Iterator[Way]:
    """The other ways in which the model runs as it is."""
    more = copy(subject)
    more.masked, more.double, more.call = {}, None, subject.call.repeated()
    if more.call is not subject.call and runs(more):
        yield Way(more, 'with twice as many samples')
    if not may_differ_in_training(subject.module):
        return
    training = copy(subject)
    training.masked, training.double = {}, None
    training.module = in_training(deepcopy(subject.module))
    if runs(training):
        yield Way(training, 'in training mode', draws_nothing(training))


def may_differ_in_training(module: Holder) -> bool:
    """Whether the source of any of its modules' classes, PyTorch's own aside, mentions training."""
    homes = {kind.__module__ for inner in module.held.modules() for kind in type(inner).__mro__}
    return any(
        mentions_training(home) for home in homes if not home.startswith(('torch.', 'builtins'))
    )


@cache
def mentions_training(home: str) -> bool:
    """Whether a Python module's source has the word ``training``, or is not to be had."""
    try:
        return 'training' in inspect.getsource(sys.modules[home])
    except (KeyError, OSError, TypeError):
        return True


def in_training(module: Holder) -> Holder:
    """The module in training mode, but for dropout and batch norms."""
    module.train()
    for inner in module.modules():
        if isinstance(inner, OF_TRAINING):
            inner.eval()
    return module


def runs(subject: Subject) -> bool:
    """Whether the model as it is runs in this way."""
    try:
        subject.run(subject.module)
    except Exception:  # whatever the model raises
        return False
    return True


def draws_nothing(subject: Subject) -> bool:
    """Whether two runs give the same whatever the random numbers are."""
    first, second = (subject.run(subject.module, seed) for seed in (0, 1))
    return len(first) == len(second) and all(map(torch.equal, first, second))

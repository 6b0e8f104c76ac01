"""Calls of a model's modules while it runs once."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from ...common.eval_mode import evaluation_mode
from ...common.unchanged import unchanged
from .call import Call
from .proof import without_cache


def of_features(model: nn.Module, call: Call) -> Call:
    """The call by which whole models are compared: of a detector, the one that gives its features.

    What comes after them picks the best of many boxes, where rounding decides between near ones.
    """
    features = Call(call.args[:1], method='extract_feat')
    detector = hasattr(model, features.method) and hasattr(model, 'data_preprocessor')
    if call.method or not call.args or not detector:
        return call
    try:
        with evaluation_mode(model), torch.no_grad(), unchanged(model):
            features.copied().on(model)
    except Exception:  # the model's own code may raise anything
        return call
    return features


@torch.no_grad()
def captured(model: nn.Module, call: Call, owners: set[str]) -> dict[str, Call]:
    """The first call of each of these modules and those around them, also of their ``forward`` itself."""
    calls = {'': call}
    wanted = set()
    for owner in owners:
        parts = owner.split('.') if owner else []
        wanted |= {'.'.join(parts[:i]) for i in range(1, len(parts) + 1)}

    def keep(name: str, args: tuple, kwargs: dict) -> None:
        if name not in calls:
            found = Call(args, kwargs)
            calls[name] = found.copied() if name in owners else found

    with ExitStack() as stack:
        for name in wanted:
            stack.enter_context(watched(model.get_submodule(name), partial(keep, name)))
        with evaluation_mode(model), without_cache(model), unchanged(model):
            call.copied().on(model)
    return calls


@contextmanager
def watched(module: nn.Module, keep: Callable[[tuple, dict], None]) -> Iterator[None]:
    """Hand over the arguments of each call of a module's ``forward``."""
    before = vars(module).get('forward')
    forward = module.forward

    def noting(*args: Any, **kwargs: Any) -> Any:
        keep(args, kwargs)
        return forward(*args, **kwargs)

    vars(module)['forward'] = noting
    try:
        yield
    finally:
        if before is None:
            del vars(module)['forward']
        else:
            vars(module)['forward'] = before


def called(owner: str, calls: dict[str, Call]) -> str:
    """The innermost module around the owner, or it itself, that is called."""
    while owner and owner not in calls:
        owner = owner.rpartition('.')[0]
    return owner

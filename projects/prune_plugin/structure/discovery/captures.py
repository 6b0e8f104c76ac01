"""Calls of a model's modules while it runs once."""

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
    """The first call of each of these modules and those around them."""
    calls = {'': call}
    wanted = set()
    for owner in owners:
        parts = owner.split('.') if owner else []
        wanted |= {'.'.join(parts[:i]) for i in range(len(parts) + 1)}
    handles = []
    for name in wanted:

        def keep(module: nn.Module, args: tuple, kwargs: dict, name: str = name) -> None:
            if name not in calls:
                calls[name] = Call(args, kwargs)
                if name in owners:
                    calls[name] = calls[name].copied()

        handles.append(model.get_submodule(name).register_forward_pre_hook(keep, with_kwargs=True))
    try:
        with evaluation_mode(model), without_cache(model), unchanged(model):
            call.copied().on(model)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def called(owner: str, calls: dict[str, Call]) -> str:
    """The innermost module around the owner, or it itself, that is called."""
    while owner and owner not in calls:
        owner = owner.rpartition('.')[0]
    return owner

"""`SlimModel`: building the slim model that a checkpoint describes."""

import json

from mmengine.registry import MODELS
from torch import nn

from ..common.errors import UserError
from ..structure.prune_state import PruneState
from ..structure.slimming import slim


@MODELS.register_module(name='SlimModel')
def build_slim_model(model: dict, prune_state: str | dict) -> nn.Module:
    """Build ``model`` and cut it as ``prune_state`` says; weights come from the checkpoint.

    The model returned is the inner one itself, so its state-dict keys are the dense model's. It
    carries the state as ``model.prune_state``.

    Args:
        model: Config of the dense model, untouched.
        prune_state: A slim checkpoint, a ``.json`` file, or the state as a dict.

    Raises:
        UserError: the state can't be read or doesn't fit the model.

    Example:
        >>> model = dict(type='SlimModel', model=dict(type='TimmClassifier', ...), prune_state='a.pth')
    """
    state = (
        state_from_file(prune_state)
        if isinstance(prune_state, str)
        else PruneState.from_dict(prune_state)
    )
    dense = MODELS.build(model)
    # A slim model's weights come from its checkpoint: initialising it, or loading what the dense
    # config names, would be wrong.
    for module in dense.modules():
        if hasattr(module, 'init_cfg'):
            module.init_cfg = None
            module._is_init = True
    slim(dense, state)
    dense.prune_state = state
    return dense


def state_from_file(path: str) -> PruneState:
    """Read a prune state from a ``.json`` file or from a checkpoint's ``meta``.

    Raises:
        UserError: the file is missing, unreadable or carries no prune state.
    """
    if not str(path).endswith('.json'):
        from ..checkpoints.checkpoint_file import load_file, prune_state_of

        state = prune_state_of(load_file(path))
        if state is None:
            raise UserError(
                f'{path} carries no prune_state; give a slim checkpoint or a .json file'
            )
        return state
    try:
        with open(path, encoding='utf-8') as file:
            return PruneState.from_dict(json.load(file))
    except OSError as error:
        raise UserError(f'prune_state file {path} cannot be read: {error.strerror}') from error
    except json.JSONDecodeError as error:
        raise UserError(f'prune_state file {path} is not JSON: {error}') from error

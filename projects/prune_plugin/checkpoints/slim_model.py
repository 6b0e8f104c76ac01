"""`SlimModel`: building a slim model from a dense config and a prune state."""

import json

from mmengine.registry import MODELS
from torch import nn

from ..common.errors import UserError
from ..structure.prune_state import PruneState
from ..structure.slimming import slim


@MODELS.register_module(name='SlimModel')
def build_slim_model(model: dict, prune_state: str | dict) -> nn.Module:
    """Build ``model`` and slim it by ``prune_state``; its weights are loaded from a checkpoint later.

    The slimmed model itself is returned, without a wrapper, so its state-dict keys are those of the dense
    model. Its attribute ``prune_state`` is the state.

    Args:
        model: Config of the dense model, which isn't changed.
        prune_state: Path of a slim checkpoint or a ``.json`` file, or the state as a dict.

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
    # A slim model's weights are loaded from its checkpoint: initialising it, or loading the pretrained
    # weights of the dense config, would fail or be overwritten.
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
        UserError: the file is missing or unreadable, or contains no prune state.
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

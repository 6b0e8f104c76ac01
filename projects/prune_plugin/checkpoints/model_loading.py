"""Building the model that a config and a checkpoint describe, and loading its weights."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ..common.errors import UserError
from ..common.model_interface import init_weights_of, prune_state_on, weights_source_of
from ..common.terminal import hidden_from_terminal
from ..structure.prune_state import PruneState
from .checkpoint_file import load_file, load_weights, prune_state_of


@dataclass
class Loaded:
    """A model with its weights, and the checkpoint they were loaded from.

    Attributes:
        model: The model in evaluation mode, on the requested device.
        checkpoint: Content of the checkpoint; empty ``meta`` and ``state_dict`` without a file.
        prior_state: The checkpoint's prune state, if it is slim already, else None.
    """

    model: nn.Module
    checkpoint: dict[str, Any]
    prior_state: PruneState | None


def model_config(cfg: Config, state: PruneState | None) -> dict:
    """The config of the model to build: ``SlimModel`` around the dense model if ``state`` is given.

    Raises:
        UserError: the config has no model.
    """
    if not cfg.get('model'):
        raise UserError(f'{cfg.filename} has no model')
    model = deepcopy(cfg.model)
    if model.get('type') == 'LoraModel':  # checkpoints hold merged weights
        model = model.model
    if state is None:
        return model
    if model.get('type') == 'SlimModel':
        model = model.model
    return dict(type='SlimModel', model=model, prune_state=state.to_dict())


def load_model(cfg: Config, path: str | None, device: str | torch.device = 'cpu') -> Loaded:
    """Build the config's model and load a checkpoint into it; all names and shapes must match.

    Args:
        cfg: The dense config; for a checkpoint with a prune state the slim model is built.
        path: Checkpoint; None: weights are initialised as the model and its config define.
        device: Device to move the model to.

    Raises:
        UserError: see :func:`load_file`, :func:`load_weights` and :func:`initialise`.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    checkpoint = load_file(path) if path else {'meta': {}, 'state_dict': {}}
    checkpoint.setdefault('meta', {})
    prior_state = prune_state_of(checkpoint)
    if not path:
        torch.manual_seed((cfg.get('randomness') or {}).get('seed') or 0)
    with slimmed_from(path, cfg) if prior_state else nullcontext():
        model = MODELS.build(model_config(cfg, prior_state))
    if path:
        load_weights(model, checkpoint, path)
    else:
        source = weights_source_of(model)
        origin = f'those of {source}' if source else 'freshly initialised'
        level = logging.INFO if source else logging.WARNING
        print_log(f'no checkpoint given: weights are {origin}', 'current', level)
        initialise(model)
        prior_state = prune_state_on(model)
    model.to(device)
    model.eval()
    return Loaded(model, checkpoint, prior_state)


#: What a prune state that doesn't fit a model is refused with.
MISFIT = re.compile(r'prune_state\.groups.*(in this model|the model has no )')


@contextmanager
def slimmed_from(path: str | None, cfg: Config) -> Iterator[None]:
    """Name the checkpoint, and the config if it's of another model, where slimming by it fails."""
    try:
        yield
    except UserError as error:
        detail = str(error).removesuffix('; the state belongs to another model')
        if not MISFIT.match(detail):
            raise UserError(f'checkpoint {path}: {detail}') from error
        raise UserError(
            f'checkpoint {path} belongs to another model than config {cfg.filename}; give the dense config '
            f'that it was pruned with ({detail})'
        ) from error


def initialise(model: nn.Module) -> None:
    """Call ``model.init_weights()``, if defined: random weights, or pretrained ones given in its config.

    MMEngine logs a line for every parameter; terminals show only its warnings.

    Raises:
        UserError: a file of pretrained weights can't be read; the message names the key in the config.
    """
    try:
        with hidden_from_terminal():
            init_weights_of(model)
    except (OSError, UserError) as error:  # no such file, or no network
        pretrained = {
            '.'.join(('model', *filter(None, (name,)), 'init_cfg')): init['checkpoint']
            for name, module in model.named_modules()
            if isinstance(init := getattr(module, 'init_cfg', None), Mapping)
            and init.get('type') == 'Pretrained'
        }
        if not pretrained:
            raise
        key, path = next(iter(pretrained.items()))
        raise UserError(
            f'{key} names {path!r}, which cannot be read ({error}); give a CHECKPOINT, or start from '
            f'random weights: --cfg-options {" ".join(f"{key}=None" for key in pretrained)}'
        ) from error


def is_plain_data(value: Any) -> bool:
    """Whether ``value`` consists only of dicts, lists, tuples, strings, numbers and None."""
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and is_plain_data(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain_data, value))
    return value is None or type(value) in (str, int, float, bool)


def plain_meta(checkpoint: Mapping) -> dict[str, Any]:
    """Entries of a checkpoint's ``meta`` that ``torch.load(..., weights_only=True)`` can read anywhere."""
    return {k: v for k, v in (checkpoint.get('meta') or {}).items() if is_plain_data(v)}

"""Whether a training to go on with is one of the config's model; looked at before anything is written."""

import ast
import logging
import warnings
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ..checkpoints.checkpoint_file import load_weights
from ..common.errors import UserError
from ..common.random_state import kept_random_state

#: Changes of the model that a warning names.
NAMED = 5
#: The key of a slim model's config that names a file: the resumed checkpoint, when it goes on.
PRUNE_STATE = 'prune_state'
#: Where an entry is that only one of two dicts has.
ABSENT = 'not set'


def check_resumed_model(cfg: Config, content: Mapping[str, Any], path: str) -> None:
    """Compare a training's checkpoint with the model of the config that is to go on with it.

    MMEngine resumes with what fits and leaves the rest at random.

    Args:
        cfg: The config, with the slim model if the checkpoint is one.
        content: The checkpoint.
        path: Its file, for messages.

    Raises:
        UserError: tensors are missing, unexpected or of another shape.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # nothing can be copied to the meta device
            load_weights(built(cfg, 'meta'), content, path)
    except Exception:  # a mistake, or a model or its slim layers need numbers: these decide
        try:
            load_weights(built(cfg, 'cpu'), content, path)
        except UserError as error:
            raise UserError(
                f'--resume: {error}; use the config of that training, or start a new one with --load-from'
            ) from error
    text = (content.get('meta') or {}).get('cfg')
    if isinstance(text, str):
        warn_of_changes(text, cfg.model, path)


def built(cfg: Config, device: str) -> nn.Module:
    """The config's model on a device: on ``meta`` without weights, and without the memory for them."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    with torch.device(device), kept_random_state():
        return MODELS.build(deepcopy(cfg.model))


def warn_of_changes(text: str, model: Mapping[str, Any], path: str) -> None:
    """Say what of the model's config was otherwise when a training began: shapes don't tell all.

    Args:
        text: That training's config, as MMEngine keeps it in checkpoints. It is read, not run.
        model: The model's config now.
        path: The checkpoint.
    """
    before = model_in(text)
    if before is None:
        return
    changes = list(differences(before, plain(model), 'model'))
    if changes:
        more = f' and {len(changes) - NAMED} more' if len(changes) > NAMED else ''
        print_log(
            f'--resume {path}: the model was another when that training began: '
            f'{", ".join(changes[:NAMED])}{more}',
            'current',
            logging.WARNING,
        )


def model_in(text: str) -> dict[str, Any] | None:
    """The literal ``model = dict(...)`` in a config's text; None if there is none."""
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for statement in statements:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == 'model':
            try:
                value = literal(statement.value)
            except (ValueError, RecursionError):
                return None
            return value if isinstance(value, dict) else None
    return None


def literal(node: ast.expr) -> Any:
    """The value of an expression of literals, ``dict(...)`` among them.

    Raises:
        ValueError: it is another expression.
    """
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'dict' and not node.args:
        return {str(word.arg): literal(word.value) for word in node.keywords}
    if isinstance(node, ast.Dict):
        keys = [None if key is None else ast.literal_eval(key) for key in node.keys]
        return dict(zip(keys, map(literal, node.values), strict=True))
    if isinstance(node, ast.List | ast.Tuple):
        return [literal(item) for item in node.elts]
    return ast.literal_eval(node)


def plain(value: Any) -> Any:
    """A config with dicts and lists alone, as :func:`literal` gives them."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def differences(before: Any, now: Any, key: str) -> Iterator[str]:
    """What differs, as ``key: before -> now``."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys((*before, *now)):
            if name == PRUNE_STATE:
                continue
            yield from differences(before.get(name, ABSENT), now.get(name, ABSENT), f'{key}.{name}')
    elif before != now:
        yield f'{key} {before!r} -> {now!r}'

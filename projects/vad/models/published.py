"""Checkpoints of other origin: what to drop from them, and which images their weights want."""

import ast
import logging
import os
import re
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log

from projects.prune_plugin.common.errors import UserError

#: Tensors that older stacks store beside the model's own: averages kept by an EMA hook, and the
#: classifier of an ImageNet backbone.
FOREIGN = re.compile(r'^(ema_.*|(module\.)?img_backbone\.fc\..*)$')
#: The key in a checkpoint's meta.
NORM = 'img_norm'
RELEASED = 'mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False'


def without_foreign(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors without those that no VAD model has; what is dropped is logged."""
    dropped = [name for name in state_dict if FOREIGN.match(name)]
    if dropped:
        shown = ', '.join(dropped[:3]) + (', ...' if len(dropped) > 3 else '')
        print_log(f'{len(dropped)} tensors dropped, which VAD does not have: {shown}', 'current')
    return {name: tensor for name, tensor in state_dict.items() if not FOREIGN.match(name)}


def norm_of(meta: Mapping[str, Any]) -> dict[str, Any] | None:
    """The image normalisation that a checkpoint was trained with, or None if it doesn't say.

    Ours say so by themselves. The original project's hold their config as text, out of which
    literals are read; nothing in it is run.
    """
    if meta.get(NORM):
        return dict(meta[NORM])
    text = meta.get('config')
    found = re.search(r'img_norm_cfg\s*=\s*dict\((.*?)\)\s*(?:\n|$)', text, re.S) if text else None
    if found is None:
        return None
    values = {}
    for key, name in (('mean', 'mean'), ('std', 'std'), ('to_rgb', 'bgr_to_rgb')):
        value = re.search(rf'\b{key}\s*=\s*(\[.*?\]|True|False)', found[1], re.S)
        if value is None:
            return None
        values[name] = ast.literal_eval(value[1])
    return values


def check_norm(
    meta: Mapping[str, Any], own: Mapping[str, Any] | None, path: str | os.PathLike
) -> None:
    """Refuse weights that want other images than the model is set to give them.

    Args:
        meta: Of the checkpoint.
        own: The model's normalisation; None if it takes images as they are.
        path: The checkpoint, for the message.

    Raises:
        UserError: the two differ.
    """
    if own is None:
        return
    theirs = norm_of(meta)
    if theirs is None:
        print_log(
            f'checkpoint {path} does not say which image normalisation it was trained with; '
            f'taken: {written(own)}. The weights released with VAD want {RELEASED} '
            '(keys of model.data_preprocessor)',
            'current',
            logging.WARNING,
        )
    elif not same(theirs, own):
        texts = {
            key: ','.join(map(str, value)) if isinstance(value, list | tuple) else value
            for key, value in theirs.items()
        }
        options = ' '.join(f'model.data_preprocessor.{key}={text}' for key, text in texts.items())
        raise UserError(
            f'checkpoint {path} was trained with {written(theirs)}, but the config normalises '
            f'images with {written(own)}; add --cfg-options {options}'
        )


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two normalisations are equal, up to rounding."""
    numbers = zip([*one['mean'], *one['std']], [*other['mean'], *other['std']], strict=True)
    close = all(abs(a - b) < 1e-3 for a, b in numbers)
    return close and bool(one['bgr_to_rgb']) == bool(other['bgr_to_rgb'])


def written(norm: Mapping[str, Any]) -> str:
    """A normalisation as it stands in a config."""
    return ', '.join(f'{key}={value}' for key, value in norm.items())

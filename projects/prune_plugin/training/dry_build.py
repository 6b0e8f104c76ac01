"""What a Runner would build when it trains or evaluates, tried before anything is written."""

import inspect
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS, LOG_PROCESSORS, LOOPS, METRICS, Registry
from mmengine.runner import Runner
from torch.utils.data import IterableDataset

from ..common.argument_types import check_arguments
from ..common.building import built_from
from ..common.errors import UserError
from ..common.random_state import kept_random_state
from ..common.registry import accepted_keys
from ..common.validation import at_least

#: Packages whose metrics read no files when they are built.
LIGHT = ('mmengine', 'projects')
#: What a Runner gives a loop itself.
OF_RUNNER = {'runner', 'dataloader', 'evaluator'}
#: Keys of ``train_cfg`` that count something, with the smallest number.
COUNTS = {'max_epochs': 0, 'max_iters': 0, 'val_interval': 1, 'val_begin': 0}
#: The loop of each key if the config names none.
LOOP_OF = {'val_cfg': 'ValLoop', 'test_cfg': 'TestLoop'}


def try_parts(cfg: Config) -> None:
    """Build, or look over, hooks, loops and the log processor of a config.

    Raises:
        UserError: one can't be built, or has keys or values that its class doesn't take; it names the key.
    """
    for name, hook in (cfg.get('default_hooks') or {}).items():
        try_block(f'default_hooks.{name}', hook, HOOKS)
    for number, hook in enumerate(cfg.get('custom_hooks') or []):
        try_block(f'custom_hooks[{number}]', hook, HOOKS)
    try_block('log_processor', cfg.get('log_processor'), LOG_PROCESSORS)
    try_metrics('val_evaluator', cfg.get('val_evaluator'))
    train_cfg = cfg.get('train_cfg') or {}
    for key, least in COUNTS.items():
        if key in train_cfg:
            at_least(f'train_cfg.{key}', train_cfg[key], least)
    for key, default in LOOP_OF.items():
        check_loop(key, cfg.get(key), default)
    if train_cfg:
        by_epoch = (
            'EpochBasedTrainLoop' if train_cfg.get('by_epoch', True) else 'IterBasedTrainLoop'
        )
        check_loop('train_cfg', {k: v for k, v in train_cfg.items() if k != 'by_epoch'}, by_epoch)


def try_block(key: str, block: Any, registry: Registry) -> None:
    """Build what a dict with a type describes, if MMEngine defines it; of others look at the keys."""
    if not isinstance(block, Mapping) or 'type' not in block:
        return
    cls = registry.get(block['type']) if isinstance(block['type'], str) else block['type']
    if not isinstance(cls, type):
        return
    given = {name: value for name, value in block.items() if name not in ('type', 'priority')}
    check_arguments(key, cls, given)
    if issubclass(cls, CheckpointHook):
        takers = cls, CheckpointHook, Runner.save_checkpoint  # each hands on what it doesn't know
        valid = [name for taker in takers for name in accepted_keys(taker) if name != 'self']
        for name in given:
            if name not in valid:
                raise UserError(
                    f'{key}.{name} is not a key of {cls.__name__}; valid are {", ".join(valid)}'
                )
    if cls.__module__.partition('.')[0] == 'mmengine':
        with built_from(key):
            registry.build({**deepcopy(given), 'type': cls})


def try_metrics(key: str, evaluator: Any) -> None:
    """Build the metrics of an evaluator, but for those that may read large files.

    Raises:
        UserError: one can't be built.
    """
    metrics = [evaluator] if isinstance(evaluator, Mapping) else list(evaluator or [])
    for block in metrics:
        name = block.get('type') if isinstance(block, Mapping) else None
        cls = METRICS.get(name) if isinstance(name, str) else name
        if isinstance(cls, type) and cls.__module__.partition('.')[0] in LIGHT:
            with built_from(key):
                METRICS.build({**deepcopy(block), 'type': cls})


def check_loop(key: str, block: Any, default: str) -> None:
    """Raise :class:`UserError` for a loop that isn't registered, or a key that it doesn't take."""
    if block is None:
        return
    name = block.get('type', default)
    cls = LOOPS.get(name) if isinstance(name, str) else name
    if not isinstance(cls, type):
        raise UserError(f'{key}.type is {name!r}, which is not a loop')
    valid = [name for name in accepted_keys(cls) if name not in OF_RUNNER]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values())
    given = {name: value for name, value in block.items() if name != 'type'}
    for name in given:
        if name not in valid and not takes_any:
            raise UserError(
                f'{key}.{name} is not a key of {cls.__name__}; valid are {", ".join(valid)}'
            )
    check_arguments(key, cls, given)


def try_loader(cfg: Config, key: str) -> None:
    """Build a dataloader of a config, and a batch of its first sample.

    Raises:
        UserError: its values, or those of the data set's transforms, don't go together, or a file of the
            data is missing.
    """
    loader = cfg.get(key)
    if not isinstance(loader, Mapping):
        return
    try:
        with built_from(key), kept_random_state():
            made = Runner.build_dataloader(deepcopy(loader), seed=0)
            if not isinstance(made.dataset, IterableDataset) and len(made.dataset):
                made.collate_fn([made.dataset[0]])
    except FileNotFoundError as error:
        raise UserError(f'{key}.dataset: {error}; give the path of the data') from error


def try_step(wrapper: Any, parameter: torch.nn.Parameter) -> None:
    """Make one step of an optimizer that stands for the config's: gradients are clipped by it, too."""
    with built_from('optim_wrapper'):
        wrapper.update_params(parameter.square().sum())

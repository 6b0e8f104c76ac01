"""What of a config can be told to be wrong without building anything."""

import importlib.util
import multiprocessing
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from .errors import UserError
from .validation import at_least

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader', 'calibration_dataloader')
#: Packages that MMEngine's visualization backends import.
BACKEND_PACKAGES = {
    'WandbVisBackend': 'wandb', 'TensorboardVisBackend': 'tensorboard', 'MLflowVisBackend': 'mlflow',
    'ClearMLVisBackend': 'clearml', 'NeptuneVisBackend': 'neptune', 'DVCLiveVisBackend': 'dvclive',
    'AimVisBackend': 'aim',
}  # fmt: skip
#: What must be a dict where it is given.
DICTS = (
    'train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper', 'env_cfg', 'randomness', 'log_processor',
)  # fmt: skip
#: Keys of ``env_cfg.mp_cfg``.
PROCESS_KEYS = ('mp_start_method', 'opencv_num_threads')
#: Where every ``type`` names a class.
TYPED = (
    *LOADERS, 'train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper', 'param_scheduler', 'default_hooks',
    'custom_hooks', 'val_evaluator', 'test_evaluator', 'log_processor', 'visualizer', 'vis_backends',
)  # fmt: skip


def check_types(cfg: Config) -> None:
    """Raise :class:`UserError` for a value of a type that nothing could be built from; it names the key."""
    for key in DICTS:
        if (block := cfg.get(key)) is not None and not isinstance(block, Mapping):
            raise UserError(f'{key} is {block!r}; it must be a dict')
    for key in TYPED:
        check_type_names(key, cfg.get(key))
    check_processes(cfg.get('env_cfg') or {})
    block = cfg.get('model')
    if block is not None:
        check_block('model', block)
    for key in LOADERS:
        if isinstance(loader := cfg.get(key), Mapping):
            check_loader(key, loader)
        elif loader is not None:
            raise UserError(f'{key} is {loader!r}; it must be a dict')
    for key in ('val_evaluator', 'test_evaluator'):
        if (evaluator := cfg.get(key)) is not None:
            check_blocks(key, evaluator)
    for number, hook in enumerate(as_list('custom_hooks', cfg.get('custom_hooks') or [])):
        check_hook(f'custom_hooks[{number}]', hook)
    hooks = cfg.get('default_hooks') or {}
    if not isinstance(hooks, Mapping):
        raise UserError(f'default_hooks is {hooks!r}; it must be a dict of hooks by name')
    for name, hook in hooks.items():
        if hook is not None:
            check_hook(f'default_hooks.{name}', hook)
    check_schedulers(cfg.get('param_scheduler'))
    seed = (cfg.get('randomness') or {}).get('seed')
    if seed is not None:
        at_least('randomness.seed', seed, 0)
    check_backends(cfg.get('visualizer'), cfg.get('vis_backends'))


def check_processes(env_cfg: Mapping) -> None:
    """Raise :class:`UserError` for an ``env_cfg.mp_cfg`` that no process can be started by."""
    settings = env_cfg.get('mp_cfg')
    if settings is None:
        return
    if not isinstance(settings, Mapping):
        raise UserError(f'env_cfg.mp_cfg is {settings!r}; it must be a dict')
    method = settings.get('mp_start_method', 'fork')
    valid = multiprocessing.get_all_start_methods()
    if method not in valid:
        raise UserError(
            f'env_cfg.mp_cfg.mp_start_method is {method!r}; valid are {", ".join(valid)}'
        )
    at_least('env_cfg.mp_cfg.opencv_num_threads', settings.get('opencv_num_threads', 0), 0)
    for key in settings:
        if key not in PROCESS_KEYS:
            raise UserError(
                f'{key} is not a key of env_cfg.mp_cfg; valid are {", ".join(PROCESS_KEYS)}'
            )


def check_type_names(key: str, value: Any) -> None:
    """Raise :class:`UserError` for a ``type``, however deep, that names no class and is none."""
    if isinstance(value, Mapping):
        name = value.get('type')  # that there is none is for check_block to say
        if name is not None and (not name if isinstance(name, str) else not callable(name)):
            raise UserError(f'{key}.type is {name!r}; it must be the name of a class')
        for inner, item in value.items():
            check_type_names(f'{key}.{inner}', item)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            check_type_names(f'{key}[{number}]', item)


def check_block(key: str, block: Any) -> None:
    """Raise :class:`UserError` unless a value is a dict that says its type."""
    if not isinstance(block, Mapping):
        raise UserError(f'{key} is {block!r}; it must be a dict with a type')
    if not block.get('type'):
        raise UserError(f'{key} has no type')


def as_list(key: str, value: Any) -> list:
    """A list or tuple as a list; raise :class:`UserError` for anything else."""
    if not isinstance(value, list | tuple):
        raise UserError(f'{key} is {value!r}; it must be a list')
    return list(value)


def check_blocks(key: str, value: Any) -> None:
    """Raise :class:`UserError` unless a value is such a dict, or a list of them."""
    blocks = [value] if isinstance(value, Mapping) else as_list(key, value)
    for number, block in enumerate(blocks):
        if isinstance(block, Mapping | str | int | float):
            check_block(key if block is value else f'{key}[{number}]', block)


def check_loader(key: str, loader: Mapping) -> None:
    """Raise :class:`UserError` for a dataloader of which sizes are no numbers, or a part is no dict."""
    for name, least in (('batch_size', 1), ('num_workers', 0), ('num_batch_per_epoch', 1)):
        if name in loader and (loader[name] is not None or name == 'num_workers'):
            at_least(f'{key}.{name}', loader[name], least)
    for name in ('dataset', 'sampler', 'batch_sampler'):
        part = loader.get(name)
        if isinstance(part, Mapping | str | int | float):
            check_block(f'{key}.{name}', part)
        elif name == 'dataset' and part is None:
            raise UserError(f'{key} has no dataset')
    collate = loader.get('collate_fn')
    if collate is not None and not isinstance(collate, Mapping) and not callable(collate):
        raise UserError(f'{key}.collate_fn is {collate!r}; it must be a dict with a type')


def check_hook(key: str, hook: Any) -> None:
    """Raise :class:`UserError` for a hook that is no dict, or an interval that is none."""
    if isinstance(hook, str | int | float | list | tuple):
        raise UserError(f'{key} is {hook!r}; it must be a dict with a type')
    if not isinstance(hook, Mapping):
        return  # a hook at hand
    check_block(key, hook)
    interval = hook.get('interval')
    if not isinstance(interval, int | None) or interval == 0:
        raise UserError(
            f'{key}.interval is {interval!r}; it must be a whole number >= 1, or -1 for never'
        )


def check_schedulers(value: Any) -> None:
    """Raise :class:`UserError` unless this is a scheduler, a list of them, or that by optimizer."""
    if value is None:
        return
    if isinstance(value, Mapping) and 'type' not in value:
        for name, schedulers in value.items():
            check_blocks(f'param_scheduler.{name}', schedulers)
        return
    check_blocks('param_scheduler', value)


def check_backends(visualizer: Any, backends: Any) -> None:
    """Raise :class:`UserError` for a visualizer without a type, or a backend whose package is missing."""
    if visualizer is not None:
        if not isinstance(visualizer, Mapping):
            return  # at hand
        check_block('visualizer', visualizer)
        backends = visualizer.get('vis_backends')
    for backend in backends or []:
        if not isinstance(backend, Mapping):
            raise UserError(
                f'visualizer.vis_backends holds {backend!r}; it must be a dict with a type'
            )
        name = backend.get('type')
        package = BACKEND_PACKAGES.get(name) if isinstance(name, str) else None
        if package and importlib.util.find_spec(package) is None:
            raise UserError(
                f'visualizer.vis_backends: {name} needs the package {package}, which is not installed; '
                f'pip install {package}, or leave it out'
            )

"""Edits of configs for training after pruning, and their checks."""

import inspect
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.device import is_cuda_available, is_mlu_available, is_npu_available
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    EVALUATOR,
    HOOKS,
    METRICS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    Registry,
    init_default_scope,
)

from ..common.building import built_from
from ..common.errors import UserError
from ..common.validation import at_least, check_number
from .dry_build import try_loader, try_parts, try_step
from .settings import LR_SCHEDULES, RecoverySettings

#: Hooks added to every training that the tools run.
TRAINING_HOOKS = (
    'EpochSeedHook', 'FiniteGradientsHook', 'LatestCheckpointHook', 'ModelMetaHook',
    'FinishedTrainingHook', 'PruningScalarsHook',
)  # fmt: skip
#: Sub-directory of the work directory for each mode.
FOLDERS = {'fine_tune': 'fine_tuned', 'retrain': 'retrained'}


def settings_for(settings: RecoverySettings, retrain: bool, epochs: int | None) -> RecoverySettings:
    """The config's settings with the mode and epochs of the command line.

    If the mode differs from the config's, the config's ``lr``, ``lr_factor`` and ``warmup_iters`` are reset
    to the mode's defaults.

    Args:
        settings: The config's settings.
        retrain: Whether the mode is ``'retrain'``, else ``'fine_tune'``.
        epochs: Epochs to train; None: the config's.
    """
    mode = 'retrain' if retrain else 'fine_tune'
    epochs = epochs or settings.epochs
    if mode != settings.mode:
        return replace(
            settings, mode=mode, epochs=epochs, lr=None, lr_factor=None, warmup_iters=None
        )
    return replace(settings, epochs=epochs)


def add_hooks(cfg: Config, *types: str) -> None:
    """Append hooks of these types to ``cfg.custom_hooks``, except types that are already there."""
    hooks = list(cfg.get('custom_hooks') or [])
    present = {hook.get('type') for hook in hooks if hasattr(hook, 'get')}
    cfg.custom_hooks = hooks + [dict(type=t) for t in types if t not in present]


def use_slim_model(cfg: Config, path: str) -> None:
    """Let the Runner build the slim model described by the checkpoint or prune state file ``path``."""
    parent = cfg.model if cfg.model.get('type') == 'LoraModel' else cfg
    if parent.model.get('type') != 'SlimModel':
        parent.model = dict(type='SlimModel', model=parent.model, prune_state=str(path))
    else:
        parent.model.prune_state = str(path)
    add_hooks(cfg, 'PruneStateHook')


def fit_to_device(cfg: Config, launcher: str) -> None:
    """Set the launcher and, for distributed training on CPUs, the options that DDP needs there.

    Under a launcher, running statistics of batch norms are averaged over ranks after each epoch. On GPUs,
    data loaders pin their memory unless the config says otherwise: copies then overlap the computation.
    """
    cfg.launcher = launcher
    if torch.cuda.is_available():
        for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if cfg.get(key):
                cfg[key].setdefault('pin_memory', True)
    if launcher != 'none':
        add_hooks(cfg, 'SyncBuffersHook')
    if launcher != 'none' and not torch.cuda.is_available() and not cfg.get('model_wrapper_cfg'):
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=cfg.get('broadcast_buffers', False),
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )


def limit_epochs(cfg: Config, max_steps: int) -> None:
    """Limit each epoch to ``max_steps`` iterations.

    Raises:
        UserError: the train loop is of another type than MMEngine's EpochBasedTrainLoop.
    """
    train_cfg = dict(cfg.train_cfg)
    train_cfg.pop('by_epoch', None)
    loop = train_cfg.pop('type', 'EpochBasedTrainLoop')
    if loop not in ('EpochBasedTrainLoop', 'LimitedEpochTrainLoop'):
        raise UserError(
            f'prune_cfg.recovery.max_steps is {max_steps}, but train_cfg.type is {loop!r}; it works '
            'only with EpochBasedTrainLoop'
        )
    cfg.train_cfg = {**train_cfg, 'type': 'LimitedEpochTrainLoop', 'max_steps': max_steps}


def use_lora(cfg: Config, lora: Mapping) -> None:
    """Train only low-rank adapters on the config's model, slim or not.

    Raises:
        UserError: the config has an EMAHook.
    """
    refuse_ema(cfg, 'prune_cfg.recovery.lora')
    adapters = {name: value for name, value in lora.items() if name != 'lr'}
    cfg.model = dict(type='LoraModel', model=cfg.model, **adapters)
    for hook in cfg.get('custom_hooks') or []:
        if hook.get('type') == 'CarryOverHook':
            hook['optimizer'] = False
    add_hooks(cfg, 'LoraHook')


def use_sharding(cfg: Config, sharding: Mapping) -> None:
    """Shard the model among ranks; one process trains as usual.

    Raises:
        UserError: the config has an EMAHook or another ``runner_type``.
    """
    refuse_ema(cfg, 'prune_cfg.recovery.sharding')
    if cfg.get('runner_type', 'Runner') not in ('Runner', 'ShardedRunner'):
        raise UserError(
            f'prune_cfg.recovery.sharding needs the ShardedRunner, but runner_type is '
            f'{cfg.runner_type!r}; leave one of them out'
        )
    cfg.runner_type = 'ShardedRunner'
    cfg.model_wrapper_cfg = dict(type='FullyShard', **sharding)


def refuse_ema(cfg: Config, key: str) -> None:
    """Raise :class:`UserError` if the config has an EMAHook, which ``key`` doesn't support."""
    for hook in cfg.get('custom_hooks') or []:
        if hasattr(hook, 'get') and hook.get('type') == 'EMAHook':
            raise UserError(
                f"{key} doesn't go with the EMAHook in custom_hooks; leave one of them out"
            )


def adapt_training(cfg: Config, settings: RecoverySettings) -> None:
    """Apply ``max_steps``, ``lora`` and ``sharding`` to a config.

    Raises:
        UserError: they conflict with the config.
    """
    if settings.max_steps is not None:
        limit_epochs(cfg, settings.max_steps)
    if settings.lora is not None:
        use_lora(cfg, settings.lora)
    if settings.sharding is not None:
        use_sharding(cfg, settings.sharding)


def check_trainable(cfg: Config, settings: RecoverySettings | None = None) -> None:
    """Raise :class:`UserError` unless the config can be trained by epochs, with these settings if given."""
    train_cfg = cfg.get('train_cfg') or {}
    if not train_cfg or not cfg.get('optim_wrapper') or not cfg.get('train_dataloader'):
        raise UserError(
            f'{cfg.filename} cannot be trained: it needs train_cfg, train_dataloader, optim_wrapper'
        )
    if not train_cfg.get('by_epoch', train_cfg.get('type') != 'IterBasedTrainLoop'):
        raise UserError('train_cfg.by_epoch is False; recovery trains by epochs')
    if not isinstance(cfg.optim_wrapper.get('optimizer'), Mapping):
        raise UserError(
            'optim_wrapper has no optimizer of its own, as with a constructor that makes several; recovery '
            'trains with one: give optim_wrapper=dict(optimizer=dict(type=...))'
        )
    if settings is not None:
        adapt_training(deepcopy(cfg), settings)


def check_teacher(settings: RecoverySettings, checkpoint: str | None) -> None:
    """Raise :class:`UserError` if distillation is set but there is no checkpoint of a teacher."""
    if settings.distill is not None and not checkpoint:
        raise UserError(
            'prune_cfg.recovery.distill needs a trained dense model as teacher; give a checkpoint '
            '(load_from in tools/train.py)'
        )


def check_data(cfg: Config, key: str) -> None:
    """Build a data set once, so that missing data is an error before anything is written.

    Args:
        cfg: The config.
        key: The dataloader's key, ``'train_dataloader'`` or ``'test_dataloader'``.

    Raises:
        UserError: a file of the data set is missing.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    try:
        with built_from(f'{key}.dataset'):
            DATASETS.build(cfg[key].dataset)
    except FileNotFoundError as error:
        raise UserError(f'{key}.dataset: {error}; give the path of the data') from error


def check_mixed_precision(cfg: Config) -> None:
    """Raise :class:`UserError` if there is no GPU for MMEngine's mixed precision in ``optim_wrapper``."""
    name = (cfg.get('optim_wrapper') or {}).get('type')
    wrapper = OPTIM_WRAPPERS.get(name) if isinstance(name, str) else name
    if not isinstance(wrapper, type) or not issubclass(wrapper, AmpOptimWrapper):
        return
    if not (is_cuda_available() or is_npu_available() or is_mlu_available()):
        raise UserError(
            f'optim_wrapper.type is {wrapper.__name__}, which needs a GPU, and there is none; take '
            'OptimWrapper, or --amp, which is bfloat16 on CPUs'
        )


def check_training_parts(cfg: Config) -> None:
    """Look for mistakes in what a Runner builds only when it trains, before anything is written.

    Raises:
        UserError: mixed precision needs a GPU, the training data is missing, its batch size or the
            number of epochs is no whole number, or the optimizer or the sampler isn't registered, or the
            optimizer can't be made.
    """
    check_mixed_precision(cfg)
    check_data(cfg, 'train_dataloader')
    loader, wrapper = cfg.train_dataloader, cfg.get('optim_wrapper') or {}
    if loader.get('batch_size') is not None:
        at_least('train_dataloader.batch_size', loader.batch_size, 1)
    epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    if epochs is not None:
        at_least('train_cfg.max_epochs', epochs, 0)
    check_registered('optim_wrapper.optimizer', wrapper.get('optimizer'), OPTIMIZERS)
    check_registered('optim_wrapper', wrapper, OPTIM_WRAPPERS)
    check_registered('train_dataloader.sampler', loader.get('sampler'), DATA_SAMPLERS)
    for key in ('val_evaluator', 'test_evaluator'):
        check_registered(key, cfg.get(key), METRICS, EVALUATOR)
    for name, hook in (cfg.get('default_hooks') or {}).items():
        check_registered(f'default_hooks.{name}', hook, HOOKS)
    check_registered('custom_hooks', cfg.get('custom_hooks'), HOOKS)
    if not isinstance(schedulers := cfg.get('param_scheduler'), Mapping) or 'type' in schedulers:
        check_registered('param_scheduler', schedulers, PARAM_SCHEDULERS)
    check_optimizer(wrapper)
    check_evaluations(cfg)
    try_parts(cfg)
    for key in ('train_dataloader', 'val_dataloader'):
        try_loader(cfg, key)


def check_evaluations(cfg: Config) -> None:
    """Raise :class:`UserError` for an evaluation of which only a part is configured: no Runner takes it."""
    for stage in ('val', 'test'):
        keys = [f'{stage}_{part}' for part in ('dataloader', 'cfg', 'evaluator')]
        given = [key for key in keys if cfg.get(key) is not None]
        if given and len(given) < len(keys):
            missing = ' and '.join(key for key in keys if key not in given)
            raise UserError(
                f'{missing} missing beside {" and ".join(given)}; give all three, or none: '
                f'--cfg-options {" ".join(f"{key}=None" for key in given)}'
            )


def check_registered(key: str, block: Any, *registries: Registry) -> None:
    """Raise :class:`UserError` for a type that none of the registries knows; it names similar ones.

    Args:
        key: Of the config.
        block: A dict with a type, a list of them, or None; others are at hand already.
        registries: Where the type may stand.
    """
    if isinstance(block, list | tuple):
        for number, one in enumerate(block):
            check_registered(f'{key}[{number}]', one, *registries)
        return
    name = block.get('type') if isinstance(block, Mapping) else None
    if not isinstance(name, str) or any(registry.get(name) is not None for registry in registries):
        return
    known = [other for registry in registries for other in registry.module_dict]
    close = get_close_matches(name, known, n=3)
    similar = f'; similar are {", ".join(close)}' if close else ''
    raise UserError(f'{key}.type is {name!r}, which is not registered{similar}')


def check_optimizer(wrapper: Mapping) -> None:
    """Raise :class:`UserError` for an optimizer that can't be made, by making one for a single number."""
    optimizer = wrapper.get('optimizer')
    if not isinstance(optimizer, Mapping):
        return
    learning_rate(optimizer)
    parameter = torch.nn.Parameter(torch.ones(1))
    with built_from('optim_wrapper.optimizer'):
        made = OPTIMIZERS.build({**optimizer, 'params': [parameter]})
    if wrapper.get('type', 'OptimWrapper') not in ('OptimWrapper', 'Bf16OptimWrapper'):
        return  # it may need a GPU, or the model
    own = {k: v for k, v in wrapper.items() if k not in ('constructor', 'paramwise_cfg')}
    with built_from('optim_wrapper'):
        built = OPTIM_WRAPPERS.build({'type': 'OptimWrapper', **own, 'optimizer': made})
    try_step(built, parameter)


def learning_rate(optimizer: Mapping) -> float:
    """The config's learning rate, or its optimizer class's own.

    Raises:
        UserError: it is None, as of an optimizer that sets its own: MMEngine logs a number.
    """
    kind = optimizer.get('type')
    kind = OPTIMIZERS.get(kind) if isinstance(kind, str) else kind
    default = inspect.signature(kind).parameters.get('lr') if kind else None
    lr = optimizer.get('lr', default.default if default is not None else None)
    if not isinstance(lr, torch.Tensor):
        check_number('optim_wrapper.optimizer.lr', lr, 0, float('inf'), least=True)
    return lr


def recovery_config(
    cfg: Config,
    settings: RecoverySettings,
    checkpoint: dict,
    path: Path,
    work_dir: Path,
    teacher: str | None = None,
) -> Config:
    """The config for fine-tuning or retraining a pruned checkpoint.

    Args:
        cfg: The user's config; not changed.
        settings: The settings of this training.
        checkpoint: The pruned checkpoint.
        path: Path of the pruned checkpoint.
        work_dir: Work directory of the training.
        teacher: Path of the dense checkpoint, for distillation.

    Raises:
        UserError: the config doesn't train by epochs, has no optimizer, or no teacher.
    """
    cfg = deepcopy(cfg)
    check_trainable(cfg)
    check_teacher(settings, teacher)
    dense_model = deepcopy(cfg.model)
    fine_tune = settings.mode == 'fine_tune'
    start = checkpoint['meta'].get('epoch', 0) if fine_tune else 0
    cfg.train_cfg.max_epochs = start + settings.epochs
    optimizer = cfg.optim_wrapper.optimizer
    fixed, factor = settings.fixed_lr, settings.lr_factor
    optimizer.lr = learning_rate(optimizer) * (factor or 0.0) if fixed is None else fixed
    cfg.param_scheduler = [
        dict(
            type=LR_SCHEDULES[settings.lr_schedule],
            end=settings.epochs,
            warmup=settings.warmup_iters,
            by_epoch=True,
            convert_to_iter_based=True,
        )
    ]
    hooks = dict(cfg.get('default_hooks') or {})
    checkpoint_hook = dict(hooks.get('checkpoint') or dict(type='CheckpointHook', interval=1))
    cfg.default_hooks = {
        **hooks,
        'checkpoint': {
            **checkpoint_hook,
            'max_keep_ckpts': settings.max_keep_ckpts,
            'save_last': True,
        },
    }
    cfg.load_from = str(path)
    cfg.resume = False
    cfg.work_dir = str(work_dir)
    if checkpoint['meta'].get('prune_state'):
        use_slim_model(cfg, str(path))
    if checkpoint.get('masks'):
        add_hooks(cfg, 'MaskHook')
    add_hooks(cfg, *TRAINING_HOOKS, *(['CarryOverHook'] if fine_tune else []))
    adapt_training(cfg, settings)
    if settings.distill is not None:
        distill = dict(type='DistillHook', checkpoint=str(teacher), model=dense_model)
        cfg.custom_hooks += [dict(distill, **settings.distill)]
    cfg.pop('prune_cfg', None)
    if not dist.is_distributed():
        cfg.launcher = 'none'
    return cfg

"""From a config and a pruned checkpoint to the config of the training that follows."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from ..common.errors import UserError
from .settings import LR_SCHEDULES, RecoverySettings

#: What every training of the tools gets.
TRAINING_HOOKS = ('EpochSeedHook', 'FiniteGradientsHook', 'LatestCheckpointHook', 'ModelMetaHook')
#: Sub-directory of each mode.
FOLDERS = {'fine_tune': 'fine_tuned', 'retrain': 'retrained'}


def settings_for(settings: RecoverySettings, retrain: bool, epochs: int | None) -> RecoverySettings:
    """The config's settings with the command line's mode and epochs.

    A rate, factor or warm-up that the config gives by itself stays only with the config's own mode.
    """
    mode = 'retrain' if retrain else 'fine_tune'
    epochs = epochs or settings.epochs
    if mode != settings.mode:
        return replace(
            settings, mode=mode, epochs=epochs, lr=None, lr_factor=None, warmup_iters=None
        )
    return replace(settings, epochs=epochs)


def add_hooks(cfg: Config, *types: str) -> None:
    """Append hooks to ``cfg.custom_hooks`` unless they are there."""
    hooks = list(cfg.get('custom_hooks') or [])
    present = {hook.get('type') for hook in hooks if hasattr(hook, 'get')}
    cfg.custom_hooks = hooks + [dict(type=t) for t in types if t not in present]


def use_slim_model(cfg: Config, path: str) -> None:
    """Have the Runner build the slim model that the checkpoint or file ``path`` describes."""
    around = cfg.model if cfg.model.get('type') == 'LoraModel' else cfg
    if around.model.get('type') != 'SlimModel':
        around.model = dict(type='SlimModel', model=around.model, prune_state=str(path))
    else:
        around.model.prune_state = str(path)
    add_hooks(cfg, 'PruneStateHook')


def fit_to_device(cfg: Config, launcher: str) -> None:
    """Set the launcher; on CPUs, the wrapper options without which DDP refuses.

    Batch norm's running statistics are averaged over ranks after each epoch.
    """
    cfg.launcher = launcher
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
    """End each epoch after so many iterations."""
    train_cfg = dict(cfg.train_cfg)
    train_cfg.pop('by_epoch', None)
    loop = train_cfg.pop('type', 'EpochBasedTrainLoop')
    if loop not in ('EpochBasedTrainLoop', 'LimitedEpochTrainLoop'):
        raise UserError(
            f'prune_cfg.recovery.max_steps is {max_steps}, but train_cfg.type is {loop!r}; it goes '
            'with EpochBasedTrainLoop alone'
        )
    cfg.train_cfg = {**train_cfg, 'type': 'LimitedEpochTrainLoop', 'max_steps': max_steps}


def use_lora(cfg: Config, lora: Mapping) -> None:
    """Train low-rank adapters on the config's model, slim or not, and nothing else."""
    refuse_ema(cfg, 'prune_cfg.recovery.lora')
    adapters = {name: value for name, value in lora.items() if name != 'lr'}
    cfg.model = dict(type='LoraModel', model=cfg.model, **adapters)
    for hook in cfg.get('custom_hooks') or []:
        if hook.get('type') == 'CarryOverHook':
            hook['optimizer'] = False
    add_hooks(cfg, 'LoraHook')


def use_sharding(cfg: Config, sharding: Mapping) -> None:
    """Divide the model among ranks; one process trains as usual."""
    refuse_ema(cfg, 'prune_cfg.recovery.sharding')
    if cfg.get('runner_type', 'Runner') not in ('Runner', 'ShardedRunner'):
        raise UserError(
            f'prune_cfg.recovery.sharding needs the ShardedRunner, but runner_type is '
            f'{cfg.runner_type!r}; leave one of them out'
        )
    cfg.runner_type = 'ShardedRunner'
    cfg.model_wrapper_cfg = dict(type='FullyShard', **sharding)


def refuse_ema(cfg: Config, key: str) -> None:
    """Raise :class:`UserError` if the config averages weights, which doesn't go with ``key``."""
    for hook in cfg.get('custom_hooks') or []:
        if hasattr(hook, 'get') and hook.get('type') == 'EMAHook':
            raise UserError(
                f"{key} doesn't go with the EMAHook in custom_hooks; leave one of them out"
            )


def adapt_training(cfg: Config, settings: RecoverySettings) -> None:
    """Apply ``max_steps``, ``lora`` and ``sharding`` to a config.

    Raises:
        UserError: the config has something that they don't go with.
    """
    if settings.max_steps is not None:
        limit_epochs(cfg, settings.max_steps)
    if settings.lora is not None:
        use_lora(cfg, settings.lora)
    if settings.sharding is not None:
        use_sharding(cfg, settings.sharding)


def check_trainable(cfg: Config, settings: RecoverySettings | None = None) -> None:
    """Raise :class:`UserError` unless the config can be trained by epochs, as the settings say."""
    train_cfg = cfg.get('train_cfg') or {}
    if not train_cfg or not cfg.get('optim_wrapper') or not cfg.get('train_dataloader'):
        raise UserError(
            f'{cfg.filename} cannot be trained: it needs train_cfg, train_dataloader, optim_wrapper'
        )
    if not train_cfg.get('by_epoch', train_cfg.get('type') != 'IterBasedTrainLoop'):
        raise UserError('train_cfg.by_epoch is False; recovery trains by epochs')
    if settings is not None:
        adapt_training(deepcopy(cfg), settings)


def check_teacher(settings: RecoverySettings, checkpoint: str | None) -> None:
    """Raise :class:`UserError` if the settings ask for distillation and there is no teacher."""
    if settings.distill is not None and not checkpoint:
        raise UserError(
            'prune_cfg.recovery.distill needs a trained dense model as teacher; give a checkpoint '
            '(load_from in tools/train.py)'
        )


def check_data(cfg: Config, key: str) -> None:
    """Build a data set once, so that missing data shows before anything is written.

    Args:
        cfg: The config.
        key: Its dataloader, ``'train_dataloader'`` or ``'test_dataloader'``.

    Raises:
        UserError: the data set isn't there.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    try:
        DATASETS.build(cfg[key].dataset)
    except FileNotFoundError as error:
        raise UserError(f'{key}.dataset: {error}; name where the data lies') from error


def recovery_config(
    cfg: Config,
    settings: RecoverySettings,
    checkpoint: dict,
    path: Path,
    work_dir: Path,
    teacher: str | None = None,
) -> Config:
    """Config of the fine-tuning or retraining of a pruned checkpoint.

    Args:
        cfg: The user's config; not changed.
        settings: Mode, epochs, learning rate, warm-up, distillation, adapters, sharding.
        checkpoint: The pruned checkpoint, for its epoch number.
        path: Where it lies.
        work_dir: Where the training writes.
        teacher: The checkpoint that was pruned, for distillation.

    Raises:
        UserError: the config doesn't train by epochs, has no optimizer, or no teacher.
    """
    cfg = deepcopy(cfg)
    check_trainable(cfg)
    check_teacher(settings, teacher)
    dense_model = deepcopy(cfg.model)
    goes_on = settings.mode == 'fine_tune'
    start = checkpoint['meta'].get('epoch', 0) if goes_on else 0
    cfg.train_cfg.max_epochs = start + settings.epochs
    optimizer = cfg.optim_wrapper.optimizer
    fixed = settings.fixed_lr
    optimizer.lr = optimizer.lr * settings.lr_factor if fixed is None else fixed
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
    saving = dict(hooks.get('checkpoint') or dict(type='CheckpointHook', interval=1))
    cfg.default_hooks = {
        **hooks,
        'checkpoint': {**saving, 'max_keep_ckpts': settings.max_keep_ckpts},
    }
    cfg.load_from = str(path)
    cfg.resume = False
    cfg.work_dir = str(work_dir)
    if checkpoint['meta'].get('prune_state'):
        use_slim_model(cfg, str(path))
    if checkpoint.get('masks'):
        add_hooks(cfg, 'MaskHook')
    add_hooks(cfg, *TRAINING_HOOKS, *(['CarryOverHook'] if goes_on else []))
    adapt_training(cfg, settings)
    if settings.distill is not None:
        distill = dict(type='DistillHook', checkpoint=str(teacher), model=dense_model)
        cfg.custom_hooks += [dict(distill, **settings.distill)]
    cfg.pop('prune_cfg', None)
    if not dist.is_distributed():
        cfg.launcher = 'none'
    return cfg

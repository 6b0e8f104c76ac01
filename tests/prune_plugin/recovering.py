"""Recovery of toy models as the tools do it, on one process or two."""

import os
import socket
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
import torch.distributed as torch_dist
import torch.multiprocessing
import toy
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from projects.prune_plugin import StructuredPruner, slim
from projects.prune_plugin.checkpoints.checkpoint_file import load_file, use_safe_loader
from projects.prune_plugin.common import distributed
from projects.prune_plugin.common.settings import read_settings
from projects.prune_plugin.training.config_edits import fit_to_device, recovery_config
from projects.prune_plugin.training.hooks.mask_hook import pack_masks
from projects.prune_plugin.training.runner_building import build_runner
from projects.prune_plugin.training.settings import RecoverySettings
from projects.prune_plugin.workflows.cli import shut_down

TOKENS, WINDOW = 37, 8
ARCHITECTURE = dict(
    model_type='llama', vocab_size=TOKENS, hidden_size=16, intermediate_size=20,
    num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=16,
    tie_word_embeddings=True,
)  # fmt: skip
LLAMA = dict(type='HFCausalLM', architecture=ARCHITECTURE, window=WINDOW)


@DATASETS.register_module(force=True)
class ToyTokens(Dataset):
    """Windows in which each token follows from the one before."""

    def __len__(self):
        return toy.SAMPLES

    def __getitem__(self, index):
        tokens = [index]
        while len(tokens) < WINDOW:
            tokens.append((tokens[-1] * 5 + 3) % TOKENS)
        return dict(inputs=torch.tensor(tokens))


def halved(model: nn.Module) -> dict[str, torch.Tensor]:
    """Set the smaller half of each linear layer's weight to zero; the masks."""
    masks = {}
    for prefix, module in model.named_modules():
        if isinstance(module, nn.Linear) and not prefix.endswith('lm_head'):
            weight = module.weight.data
            masks[f'{prefix}.weight'] = weight.abs() > weight.abs().median()
            weight.mul_(masks[f'{prefix}.weight'])
    return masks


def pruned(folder: Path, kind: str, model: dict) -> Path:
    """``<kind>_pruned.pth`` of a trained model; ``dense.pth`` stays beside it."""
    toy_runner = toy.runner(folder / 'dense', model=deepcopy(model), train_dataloader=loader(model))
    toy_runner.train()
    (folder / 'dense.pth').write_bytes((folder / 'dense' / 'epoch_2.pth').read_bytes())
    data = load_file(folder / 'dense.pth')
    built = MODELS.build(deepcopy(model))
    built.load_state_dict(data['state_dict'])
    data = dict(meta=dict(epoch=2, iter=6), optimizer=data['optimizer'])
    if kind == 'slim':
        pruner = StructuredPruner([dict(type='FFNNeurons')], budget=dict(type='units', ratio=0.5))
        state = pruner.plan(built).state
        slim(built, state)
        data['meta']['prune_state'] = state.to_dict()
        del data['optimizer']
    if kind == 'masked':
        data['masks'] = pack_masks(halved(built))
    path = folder / f'{kind}_pruned.pth'
    torch.save(dict(data, state_dict=built.state_dict()), path)
    return path


def loader(model: dict) -> dict:
    """Batches of eight samples over all ranks."""
    found = deepcopy(toy.LOADER)
    if model['type'] == 'HFCausalLM':
        found['dataset'] = dict(type='ToyTokens')
    found['batch_size'] = 8 // (torch_dist.get_world_size() if torch_dist.is_initialized() else 1)
    return found


def config(model: dict = toy.MODEL, wrapper: dict | None = None, **kwargs) -> Config:
    """The user's config."""
    cfg = dict(
        model=deepcopy(dict(model)), train_cfg=dict(by_epoch=True, max_epochs=9),
        optim_wrapper=deepcopy({**toy.ADAMW, **(wrapper or {})}), train_dataloader=loader(model),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1),
            logger=dict(type='LoggerHook', interval=1),
        ),
        randomness=dict(seed=0), default_scope='mmengine', log_level='WARNING',
    )  # fmt: skip
    return Config({**cfg, **kwargs})


class Killed(Exception):
    """What :class:`Kill` raises."""


class Kill(Hook):
    """Ends a training in the middle of its second epoch after carrying over two."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.epoch == 3 and batch_idx == 1:
            raise Killed


def recovered(path, folder, cfg=None, hook=None, resume=None, teacher=None, **block) -> Runner:
    """Train ``path`` for two epochs as ``prune_cfg.recovery=block`` says."""
    settings = read_settings(RecoverySettings, {'epochs': 2, **block}, 'prune_cfg.recovery')
    cfg = recovery_config(cfg or config(), settings, load_file(path), path, folder, teacher)
    cfg.experiment_name = f'recovery-{next(toy.RUNS)}'
    if resume:
        cfg.load_from, cfg.resume = str(resume), True
    fit_to_device(cfg, 'pytorch' if torch_dist.is_initialized() else 'none')
    run = build_runner(cfg)
    if hook:
        run.register_hook(hook, 'LOWEST')
    run.train()
    return run


def killed(path, folder, **kwargs) -> None:
    """The same, ended in the middle of the second epoch."""
    try:
        recovered(path, folder, hook=Kill(), **kwargs)
    except Killed:
        return
    raise AssertionError('it was not killed')


def on_one_rank(rank: int, port: str, function: Callable, *args) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank), MASTER_PORT=port)
    distributed.init('pytorch')
    use_safe_loader()
    function(*args)
    shut_down(together=True)


def on_two_ranks(function: Callable, *args) -> None:
    """Call ``function`` in two processes over gloo."""
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        port = str(found.getsockname()[1])
    torch.multiprocessing.spawn(on_one_rank, (port, function, *args), nprocs=2)


def same(ours: dict, theirs: dict) -> bool:
    """Whether two dicts of tensors are equal bit for bit."""
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], t) for n, t in theirs.items())

"""Running statistics of batch norms, taken anew from a pruned model's own activations."""

from itertools import islice

import torch
from mmengine import dist
from mmengine.logging import print_log
from rich.progress import track
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..common.distributed import sum_over_ranks
from ..common.random_state import kept_random_state, seed_everything
from .data import CalibrationData
from .loss import LossFunction, mmengine_loss


def trained_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Batch norms that would update their running statistics in training, by name.

    Those that the model itself keeps in evaluation mode (``norm_eval``, frozen stages) aren't
    among them. The model is left in training mode.
    """
    model.train()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.training and module.running_mean is not None
    }


@torch.no_grad()
def recalibrate(
    model: nn.Module, data: CalibrationData, loss: LossFunction = mmengine_loss
) -> list[str]:
    """Replace the running statistics of batch norms by their mean over calibration batches.

    Only batch norms that training would update; the rest of the model runs in evaluation mode. A
    last batch that is smaller than the others is left out. All ranks must call it; each takes its
    share of the batches, and all end with the same statistics.

    Args:
        model: The model, not wrapped. Only the statistics change; modes and random states are left
            as they were.
        data: The batches.
        loss: Runs the forward pass of training.

    Returns:
        Names of the batch norms recalibrated.
    """
    modes = [(module, module.training) for module in model.modules()]
    norms = trained_norms(model)
    model.eval()
    old = {name: save(norm) for name, norm in norms.items()}
    for norm in norms.values():
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches, each counting the same
    try:
        run(model, data if norms else [], loss)
    finally:
        for name, norm in norms.items():
            norm.momentum = old[name]['momentum']
        for module, training in modes:
            module.training = training
    renewed = share(norms)
    for name in norms.keys() - renewed:
        for key, value in old[name].items():
            if key != 'momentum':
                getattr(norms[name], key).copy_(value)
    if dist.is_main_process():
        print_log(f'{len(renewed)} batch norms recalibrated', 'current')
    return [name for name in norms if name in renewed]


def save(norm: _BatchNorm) -> dict:
    """What :func:`recalibrate` changes in a batch norm."""
    buffers = ('running_mean', 'running_var', 'num_batches_tracked')
    return {'momentum': norm.momentum, **{k: getattr(norm, k).clone() for k in buffers}}


def run(model: nn.Module, data: CalibrationData, loss: LossFunction) -> None:
    """Forward passes over this rank's full batches, seeded batch by batch."""
    if not data:
        return
    full = [i for i, batch in enumerate(data.batches) if len(batch) == len(data.batches[0])]
    rank, world = dist.get_dist_info()
    mine = len(range(rank, len(full), world))
    if any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        mine = len(full) // world  # these talk to the other ranks at every batch
    bar = track(islice(data, mine), 'recalibrating', total=mine, disable=not dist.is_main_process())
    with kept_random_state():
        for number, _, batch in bar:
            seed_everything(data.seed + number)
            loss(model, batch)


def share(norms: dict[str, _BatchNorm]) -> set[str]:
    """Average the statistics over ranks, each batch counting the same.

    Returns:
        Names of those that saw a batch on any rank.
    """
    sums = {}
    for name, norm in norms.items():
        count = norm.num_batches_tracked.double()
        sums[f'{name}.count'] = count.clone()
        sums[f'{name}.mean'] = norm.running_mean.double() * count
        sums[f'{name}.var'] = norm.running_var.double() * count
    sum_over_ranks(sums)
    renewed = set()
    for name, norm in norms.items():
        count = sums[f'{name}.count']
        if count > 0:
            norm.running_mean.copy_(sums[f'{name}.mean'] / count)
            norm.running_var.copy_(sums[f'{name}.var'] / count)
            norm.num_batches_tracked.copy_(count.long())
            renewed.add(name)
    return renewed

"""Recomputing the running statistics of batch norms from a pruned model's activations."""

from collections.abc import Mapping
from itertools import islice

import torch
from mmengine import dist
from mmengine.logging import print_log
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..common.distributed import sum_over_ranks
from ..common.progress import track
from ..common.random_state import kept_random_state, seed_everything
from .data import CalibrationData
from .loss import LossFunction, mmengine_loss


def trained_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Batch norms whose running statistics training updates, by name.

    Those that the model itself keeps in evaluation mode (``norm_eval``, frozen stages) are left out.
    Side effect: the model is in training mode afterwards.
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
    """Replace the running statistics of batch norms by their mean over calibration batches, in place.

    Only those that training updates; the rest of the model runs in evaluation mode. A last batch that is
    smaller than the others is left out. All ranks must call it: each runs its share of the batches, and
    all end with the same statistics. Training modes and random states are restored.

    Args:
        model: The model, not wrapped.
        data: The batches.
        loss: Runs the forward pass of training.

    Returns:
        Names of the batch norms that were recalibrated: those that ran on any batch.
    """
    modes = [(module, module.training) for module in model.modules()]
    norms = trained_norms(model)
    model.eval()
    momenta = {name: norm.momentum for name, norm in norms.items()}
    previous = {name: running_statistics(norm) for name, norm in norms.items()}
    for norm in norms.values():
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average: all batches count the same
    try:
        if norms:
            run_full_batches(model, data, loss)
    finally:
        for name, norm in norms.items():
            norm.momentum = momenta[name]
        for module, training in modes:
            module.training = training
    updated = average_over_ranks(norms)
    for name in norms.keys() - updated:
        for key, value in previous[name].items():
            getattr(norms[name], key).copy_(value)
    if dist.is_main_process():
        print_log(f'{len(updated)} batch norms recalibrated', 'current')
    return [name for name in norms if name in updated]


def running_statistics(norm: _BatchNorm) -> dict[str, torch.Tensor]:
    """Copies of a batch norm's running statistics, by buffer name."""
    buffers = ('running_mean', 'running_var', 'num_batches_tracked')
    return {name: getattr(norm, name).clone() for name in buffers}


def run_full_batches(model: nn.Module, data: CalibrationData, loss: LossFunction) -> None:
    """Run the forward pass on this rank's batches of full size, seeded batch by batch."""
    full = [i for i, batch in enumerate(data.batches) if len(batch) == len(data.batches[0])]
    rank, world = dist.get_dist_info()
    count = len(range(rank, len(full), world))
    if any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        count = len(full) // world  # it communicates at every batch: all ranks need equally many
    bar = track(islice(data, count), 'recalibrating', total=count)
    with kept_random_state():
        for number, _, batch in bar:
            seed_everything(data.seed + number)
            loss(model, batch)


def average_over_ranks(norms: Mapping[str, _BatchNorm]) -> set[str]:
    """Average the running statistics over ranks in place, weighted by each rank's number of batches.

    Returns:
        Names of the batch norms that ran on a batch on any rank.
    """
    sums = {}
    for name, norm in norms.items():
        count = norm.num_batches_tracked.double()
        sums[f'{name}.count'] = count.clone()
        sums[f'{name}.mean'] = norm.running_mean.double() * count
        sums[f'{name}.var'] = norm.running_var.double() * count
    sum_over_ranks(sums)
    updated = set()
    for name, norm in norms.items():
        count = sums[f'{name}.count']
        if count > 0:
            norm.running_mean.copy_(sums[f'{name}.mean'] / count)
            norm.running_var.copy_(sums[f'{name}.var'] / count)
            norm.num_batches_tracked.copy_(count.long())
            updated.add(name)
    return updated

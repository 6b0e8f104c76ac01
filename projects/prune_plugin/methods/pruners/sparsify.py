"""Weight-level pruning of a whole model: from the weights alone, or with what each layer reads."""

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine import dist
from mmengine.logging import print_log
from rich.progress import Progress as Bar
from torch import Tensor, nn

from ...calibration.data import CalibrationData, forward_calls
from ...calibration.layer_inputs import check_layer, weight_matrix
from ...calibration.sequential import (
    SharedInput,
    group_by_input,
    layers_that_run_later,
    observe,
    run_layer_by_layer,
)
from ...checkpoints.checkpoint_file import load_file, save_file
from ...common.distributed import assert_ranks_agree, from_rank_0, weights_digest
from ...common.errors import UserError
from ...common.eval_mode import evaluation_mode
from ...common.random_state import kept_random_state
from ..sparsifiers.base import Sparsifier


class Progress:
    """Finished layers in a folder, one file per station, so that a killed run can go on.

    Args:
        folder: Where; made when the first layer is done.
        key: What the run is about (settings, checkpoint); another run's files are not used.
        older: What older versions wrote for the same run; their files are used.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], older: Sequence[Any] = ()):
        keys = [json.dumps(form, sort_keys=True, default=str) for form in (key, *older)]
        self.folder, self.key, self.accepted = folder, keys[0], keys

    def load(self, number: int) -> dict[str, dict[str, Tensor]] | None:
        """``{layer: dict(weight=..., keep=...)}`` of station ``number``; None if it isn't done."""
        found = from_rank_0(self.read(number) if dist.is_main_process() else None)
        if found is None:
            return None
        return {
            name: dict(weight=weight, keep=found['keep'][name])
            for name, weight in found['state_dict'].items()
        }

    def read(self, number: int) -> dict[str, Any] | None:
        """The file of station ``number``; None if there is none, or one of another run or damaged."""
        path = self.folder / f'{number:04d}.pth'
        if not path.is_file():
            return None
        try:
            found = load_file(path)
        except UserError as error:
            print_log(f'{error}; its layers are pruned again', 'current', logging.WARNING)
            return None
        return found if found.get('key') in self.accepted else None

    def save(self, number: int, layers: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Keep station ``number`` (on rank 0)."""
        if not dist.is_main_process():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        data = dict(
            key=self.key,
            state_dict={name: weight.cpu() for name, (weight, _) in layers.items()},
            keep={name: keep.cpu() for name, (_, keep) in layers.items()},
        )
        save_file(data, self.folder / f'{number:04d}.pth')

    def clear(self) -> None:
        """Remove the folder's files (on rank 0)."""
        if dist.is_main_process() and self.folder.is_dir():
            for path in self.folder.glob('*.pth'):
                path.unlink()
            if not any(self.folder.iterdir()):
                os.rmdir(self.folder)


def as_left(weight: Tensor, keep: Tensor) -> Tensor:
    """The weight with zeros exactly where an earlier round left none: one that stays counts as more."""
    least = torch.finfo(weight.dtype).tiny
    return torch.where(weight == 0, least, weight).masked_fill(~keep.to(weight.device), 0)


@torch.no_grad()
def sparsify_by_weight(
    weights: Mapping[str, nn.Parameter],
    sparsifier: Sparsifier,
    ratios: Mapping[str, float],
    before: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Prune by the weights alone, in place; weights of one ratio together.

    Args:
        weights: The weights, by name.
        sparsifier: The method.
        ratios: Fraction to remove of each.
        before: Masks of an earlier round: what it removed goes first.

    Returns:
        Which weights stay, by name.
    """
    masks: dict[str, Tensor] = {}
    ranked = {n: w if before is None else as_left(w, before[n]) for n, w in weights.items()}
    for ratio in sorted(set(ratios.values())):
        members = {name: w for name, w in ranked.items() if ratios[name] == ratio}
        masks.update(sparsifier.keep_masks(members, ratio))
    masks = {name: masks[name] for name in weights}
    for name, keep in masks.items():
        weights[name].mul_(keep)
    return masks


def sparsify_from_inputs(
    model: nn.Module,
    sparsifier: Sparsifier,
    ratios: Mapping[str, float],
    data: CalibrationData,
    loss: Callable[[nn.Module, Any], Tensor],
    progress: Progress | None = None,
    before: Mapping[str, Tensor] | None = None,
    seen: dict[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Prune by what the layers read in one forward pass over the data, in place.

    A sequential sparsifier sees every layer with what the pruned layers before it made. Beside the
    model there are in memory then the activations of one layer for all batches (some twice, if dense
    inputs are wanted), and the statistics of one input. Another sees all layers in the model as it is:
    then one batch is in memory, and the statistics of all.

    Args:
        model: The model.
        sparsifier: Reads inputs.
        ratios: Fraction to remove of each weight, by name.
        data: The batches; they should be small.
        loss: Runs the model on a batch.
        progress: Where finished layers are kept, by a sequential sparsifier.
        before: Masks of an earlier round: what it removed goes first.
        seen: Statistics of an equal model by layer, for a sparsifier that isn't sequential: used if there
            are some, else filled.

    Returns:
        Which weights stay, by name.

    Raises:
        UserError: what :class:`Sparsifier` and :func:`run_layer_by_layer` refuse.
    """
    owners = {name.rpartition('.')[0]: name for name in ratios}
    modules = {path: model.get_submodule(path) for path in owners}
    for path, module in modules.items():
        check_layer(path, module)
    packed: dict[str, np.ndarray] = {}  # a byte per weight would be a quarter of the model

    def install(name: str, weight: Tensor, keep: Tensor) -> None:
        module = modules[name.rpartition('.')[0]]
        module.weight.copy_(weight.view(module.weight.shape))
        packed[name] = np.packbits(keep.cpu().numpy())

    def prune(station: SharedInput, statistic: Any) -> dict[str, tuple[Tensor, Tensor]]:
        own = {owners[path]: weight_matrix(modules[path]) for path in station}
        earlier = before and {name: before[name].flatten(1).to(own[name].device) for name in own}
        done = sparsifier.prune(own, statistic, ratios, earlier)
        for name, (weight, keep) in done.items():
            install(name, weight, keep)
        return done

    def mask(name: str) -> Tensor:
        weight = modules[name.rpartition('.')[0]].weight
        bits = np.unpackbits(packed.pop(name), count=weight.numel())
        return torch.from_numpy(bits).bool().view(weight.shape).to(weight.device)

    with (
        evaluation_mode(model),
        kept_random_state(),
        torch.no_grad(),
        Bar(disable=bool(seen) or not dist.is_main_process()) as bar,
    ):
        first = partial(loss, model, data.first_sample())
        stops, calls = group_by_input(model, list(modules), first), forward_calls(model, data, loss)
        if not sparsifier.sequential:
            seen = {} if seen is None else seen
            if not seen:
                task = bar.add_task('looking at layers', total=len(calls) * len(stops))
                # Made before the passes: what is made meanwhile and stays cuts the free memory up.
                totals = {name: sparsifier.begin(modules[name]) for name, *_ in stops}

                def see(name: str, x: Tensor) -> None:
                    sparsifier.add(totals[name], modules[name], x)
                    bar.advance(task)

                observe(model, calls, stops, see)
                seen.update({name: sparsifier.finish(total) for name, total in totals.items()})
            for station in stops:
                prune(station, seen[station[0]])
        else:
            task = bar.add_task('pruning layers', total=len(stops))
            numbers = {station: number for number, station in enumerate(stops)}

            def visit(station: SharedInput, inputs: list[Tensor], dense: list[Tensor]) -> None:
                found = progress.load(numbers[station]) if progress else None
                if found is not None:
                    for name, layer in found.items():
                        install(name, layer['weight'], layer['keep'])
                else:
                    statistic = sparsifier.statistic(modules[station[0]], inputs, dense)
                    done = prune(station, statistic)
                    if progress:
                        progress.save(numbers[station], done)
                bar.advance(task)

            dense, later = (), set()
            if sparsifier.dense_share:
                rank, world = dist.get_dist_info()
                number = max(1, round(sparsifier.dense_share * len(data.batches)))
                dense = calls[: len(range(rank, number, world))]
                later = layers_that_run_later(model, stops, first)
            run_layer_by_layer(model, calls, stops, visit, dense, later)
    if dist.get_world_size() > 1:
        assert_ranks_agree(weights_digest(model), 'the pruned weights')
    return {name: mask(name) for name in ratios}

"""Weight-level pruning of a whole model: from the weights alone, or with what each layer reads."""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from mmengine import dist
from torch import Tensor, nn

from ...calibration.data import CalibrationData, dense_calls_of, first_share, forward_calls
from ...calibration.layer_inputs import check_layer, from_matrix, to_matrix, weight_matrix
from ...calibration.loss import LossFunction, guarded
from ...calibration.one_by_one import passes_for
from ...calibration.output_gradients import output_gradients
from ...calibration.residual_streams import Stream, StreamReads, find_streams
from ...calibration.sequential import (
    Call,
    SharedInput,
    group_by_input,
    layers_that_run_later,
    observe,
)
from ...calibration.stream_shift import stream_shift
from ...common.distributed import assert_ranks_agree, tensors_from_rank_0, weights_digest
from ...common.eval_mode import inference
from ...common.progress import Bar
from ..sparsifiers.base import Sparsifier
from .layer_progress import LayerProgress


def rank_removed_first(weight: Tensor, keep: Tensor) -> Tensor:
    """The weight with zeros exactly where the mask has none; zeros that are kept become tiny numbers."""
    least = torch.finfo(weight.dtype).tiny
    return torch.where(weight == 0, least, weight).masked_fill(~keep.to(weight.device), 0)


@torch.no_grad()
def with_zeros(
    weights: Mapping[str, Tensor], previous: Mapping[str, Tensor] | None
) -> Mapping[str, Tensor] | None:
    """Masks of an earlier round; without one, of what is zero in a checkpoint that was pruned before.

    A weight that is zero as a whole doesn't count: it begins there, and training may change it.

    Args:
        weights: The weights, by name.
        previous: Masks, True where kept; None: there was no round.

    Returns:
        A mask for each weight; None if nothing is zero.
    """
    if previous is not None:
        return previous
    kept = {name: weight != 0 for name, weight in weights.items()}
    kept = {name: keep | ~keep.any() for name, keep in kept.items()}
    return kept if not all(bool(keep.all()) for keep in kept.values()) else None


@torch.no_grad()
def sparsify_by_weight(
    weights: Mapping[str, nn.Parameter],
    sparsifier: Sparsifier,
    ratios: Mapping[str, float],
    previous: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Prune by the weights alone, in place; weights of one ratio are ranked together.

    Args:
        weights: The weights, by name.
        sparsifier: The method.
        ratios: Fraction to remove of each.
        previous: Masks of an earlier round: what it removed is removed first.

    Returns:
        Which weights are kept, by name.
    """
    masks: dict[str, Tensor] = {}
    ranked: dict[str, Tensor] = dict(weights)
    if previous is not None:
        ranked = {name: rank_removed_first(w, previous[name]) for name, w in weights.items()}
    for ratio in sorted(set(ratios.values())):
        members = {name: w for name, w in ranked.items() if ratios[name] == ratio}
        masks.update(sparsifier.keep_masks(members, ratio))
    masks = {name: masks[name] for name in weights}
    for name, keep in masks.items():
        weights[name].mul_(keep)
    return masks


class SparsifierRun:
    """The weights of a model with what their layers read, to be pruned in place.

    Args:
        model: The model.
        sparsifier: Reads inputs.
        names: Names of the weights.
        data: The batches; they should be small.
        loss: Runs the model on a batch.

    Raises:
        UserError: a layer's inputs are no rows of a matrix.
    """

    def __init__(
        self,
        model: nn.Module,
        sparsifier: Sparsifier,
        names: Iterable[str],
        data: CalibrationData,
        loss: LossFunction,
    ):
        self.model, self.sparsifier, self.data = model, sparsifier, data
        self.owners = {name.rpartition('.')[0]: name for name in names}
        self.modules = {path: model.get_submodule(path) for path in self.owners}
        for path, module in self.modules.items():
            check_layer(path, module)
        self.loss = guarded(loss)

    @cached_property
    def first_call(self) -> Call:
        """A forward pass of one sample."""
        return partial(self.loss, self.model, self.data.first_sample())

    @cached_property
    def inputs(self) -> list[SharedInput]:
        """The layers in the order in which they run, those that share an input together."""
        return group_by_input(self.model, list(self.modules), self.first_call)

    def calls(self) -> list[Call]:
        """A forward pass for each batch of this rank."""
        return forward_calls(self.model, self.data, self.loss)

    def observe(self) -> dict[str, Any]:
        """What layers read in the model as it is, by the first of those that share an input.

        One pass over the data; in memory are one batch, and the statistics of all layers.
        """
        model, sparsifier, modules = self.model, self.sparsifier, self.modules
        with inference(model), Bar() as bar:
            inputs, calls = self.inputs, self.calls()
            task = bar.add_task('observing layers', total=len(calls) * len(inputs))
            # Made before the passes: what is made meanwhile and kept cuts the free memory up.
            totals = {name: sparsifier.begin(modules[name]) for name, *_ in inputs}

            def add(name: str, x: Tensor) -> None:
                sparsifier.add(totals[name], modules[name], x)
                bar.advance(task)

            observe(model, calls, inputs, add)
            return {name: sparsifier.finish(total) for name, total in totals.items()}

    def output_weights(self) -> dict[str, Tensor]:
        """What an error in each output counts, by name of the weight; empty if all count alike."""
        share = self.sparsifier.weigh_outputs
        if not share or self.sparsifier.pattern:
            return {}
        found = output_gradients(self.model, list(self.modules), self.data, self.loss, share)
        return {self.owners[path]: weights for path, weights in found.items()}

    def prune(
        self,
        ratios: Mapping[str, float],
        statistics: Mapping[str, Any] | None = None,
        progress: LayerProgress | None = None,
        previous: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Prune all layers, in place.

        A sequential sparsifier observes every layer with what the pruned layers before it made, in one
        forward pass over the data. Beside the model there are in memory then the activations of one
        layer for all batches (some twice, if dense inputs are wanted), and the statistics of one input.

        Args:
            ratios: Fraction to remove of each weight, by name.
            statistics: From :meth:`observe`, or of an equal model; for one that isn't sequential.
            progress: Where finished layers are kept, by a sequential sparsifier.
            previous: Masks of an earlier round: what it removed is removed first.

        Returns:
            Which weights are kept, by name.

        Raises:
            UserError: what :class:`Sparsifier` and :func:`run_layer_by_layer` refuse.
        """
        scales = self.output_weights()
        packed: dict[str, np.ndarray] = {}  # a byte per weight would be a quarter of the model

        def install(name: str, weight: Tensor, keep: Tensor) -> None:
            module = self.modules[name.rpartition('.')[0]]
            module.weight.copy_(from_matrix(module, weight))
            packed[name] = np.packbits(from_matrix(module, keep).cpu().numpy())

        def prune(layers: Iterable[str], statistic: Any) -> dict[str, tuple[Tensor, Tensor]]:
            weights = {self.owners[path]: weight_matrix(self.modules[path]) for path in layers}
            earlier = previous and {
                self.owners[path]: to_matrix(self.modules[path], previous[self.owners[path]]).to(
                    self.modules[path].weight.device
                )
                for path in layers
            }

            def solve() -> list[Tensor]:
                more = {'output_weights': scales} if scales else {}
                found = self.sparsifier.prune(weights, statistic, ratios, earlier, **more)
                return [tensor for name in weights for tensor in found[name]]

            like = [x for w in weights.values() for x in (w, torch.empty_like(w, dtype=torch.bool))]
            tensors = tensors_from_rank_0(solve, like)
            pruned = dict(zip(weights, zip(tensors[::2], tensors[1::2], strict=True), strict=True))
            for name, (weight, keep) in pruned.items():
                install(name, weight, keep)
            return pruned

        def mask(name: str) -> Tensor:
            weight = self.modules[name.rpartition('.')[0]].weight
            bits = np.unpackbits(packed.pop(name), count=weight.numel())
            return torch.from_numpy(bits).bool().view(weight.shape).to(weight.device)

        with inference(self.model):
            if self.sparsifier.sequential:
                self.prune_in_order(install, prune, progress)
            else:
                statistics = statistics or self.observe()
                for layers in self.inputs:
                    prune(layers, statistics[layers[0]])
        if dist.get_world_size() > 1:
            assert_ranks_agree(weights_digest(self.model), 'the pruned weights')
        return {name: mask(name) for name in ratios}

    def prune_in_order(
        self,
        install: Callable[[str, Tensor, Tensor], None],
        prune: Callable[[Iterable[str], Any], dict[str, tuple[Tensor, Tensor]]],
        progress: LayerProgress | None,
    ) -> None:
        """Prune the layers in the order in which they run, each once those before it are pruned."""
        inputs = self.inputs
        numbers = {layers: number for number, layers in enumerate(inputs)}
        calls = self.calls()
        dense: list[Call] = []
        later: Collection[str] = ()
        streams: dict[str, Stream] = {}
        if self.sparsifier.dense_share:
            dense = first_share(
                dense_calls_of(self.model, self.data, self.loss, calls),
                self.sparsifier.dense_share,
                len(self.data.batches),
            )
            later = layers_that_run_later(self.model, inputs, self.first_call)
            if self.sparsifier.reads_streams:
                linear = [n for n, m in self.modules.items() if isinstance(m, nn.Linear)]
                streams = find_streams(self.model, linear, self.first_call)
        reads = StreamReads(self.model, streams)
        with Bar() as bar:
            task = bar.add_task('pruning layers', total=len(inputs))

            def visit(layers: SharedInput, read: list[Tensor], read_densely: list[Tensor]) -> None:
                finished = progress.load(numbers[layers]) if progress else None
                first = layers[0]
                pairs = reads.take(first, len(read_densely), len(read)) if first in streams else []
                if finished is not None:
                    for name, layer in finished.items():
                        install(name, layer['weight'], layer['keep'])
                else:
                    module, more = self.modules[first], {}
                    if first in streams and len(layers) == 1:
                        more['shift'] = stream_shift(
                            module, streams[first], read, read_densely, pairs
                        )
                    statistic = self.sparsifier.statistic(module, read, read_densely, **more)
                    pruned = prune(layers, statistic)
                    if progress:
                        progress.save(numbers[layers], pruned)
                bar.advance(task)

            with reads.watched():
                passes_for(self.data)(self.model, calls, inputs, visit, dense, later)

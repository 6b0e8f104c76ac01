"""Least-squares refit of the layers that read pruned units, in closed form."""

import logging
import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import torch
from mmengine import dist
from mmengine.logging import print_log
from torch import Tensor, nn

from ...calibration.collect import observable
from ...calibration.data import dense_calls_of, first_share, forward_calls
from ...calibration.layer_inputs import add_gram, input_rows, mirror, over_ranks, weight_matrix
from ...calibration.loss import guarded
from ...calibration.mask_gradients import input_cuts
from ...calibration.one_by_one import passes_for
from ...calibration.residual_streams import Stream, StreamReads, find_streams
from ...calibration.sequential import (
    Call,
    SharedInput,
    group_by_input,
    layers_that_run_later,
)
from ...calibration.stream_shift import Shift, stream_shift
from ...common.distributed import assert_ranks_agree, tensors_from_rank_0, weights_digest
from ...common.eval_mode import inference
from ...common.precision import without_tf32
from ...common.progress import Bar
from ...common.registry import COMPENSATIONS
from ...common.validation import check_fraction, check_number
from ...structure.prune_state import PruneState
from ...structure.slimming import mask, without_removed_layers
from ...structure.unit_group import UnitGroup
from ..optimal_brain_surgeon import damped_factor
from .base import Compensation


@without_tf32()
def refit(
    weight: Tensor,
    gram: Tensor,
    keep: Tensor,
    damping: float,
    name: str,
    shift: Tensor | None = None,
) -> Tensor:
    """Weights on the kept inputs that best reproduce the output of the weights on all inputs.

    Minimises ``||X W.T + E - X_S V.T||^2 + d ||V - W_S||^2`` over V, where S are the kept inputs, d is
    ``damping`` times the mean diagonal of their Gram matrix, and E, zero by default, what the outputs shall
    differ by. This is the optimal brain surgeon update for the removal of many inputs at once.

    Args:
        weight: W, (outputs, inputs).
        gram: ``X.T @ X``, (inputs, inputs).
        keep: Bool (inputs,), True where kept.
        damping: Fraction of the mean diagonal.
        name: The layer, for messages.
        shift: ``E.T @ X``, (outputs, inputs), to the scale of ``gram``.

    Returns:
        V, float32 (outputs, inputs), with zero columns for removed inputs.

    Raises:
        UserError: see :func:`damped_factor`.
    """
    new = torch.zeros_like(weight, dtype=torch.float32)
    if not keep.any():
        return new
    factor = damped_factor(gram[keep][:, keep], damping, name, of_inverse=False)
    # V (H_SS + d) = W H_:S + E_S + d W_S, so V - W_S = (W_R H_RS + E_S) (H_SS + d)^-1, where R are the
    # removed inputs.
    missing = weight[:, ~keep].float() @ gram[~keep][:, keep]
    if shift is not None:
        missing += shift[:, keep]
    new[:, keep] = weight[:, keep].float() + torch.cholesky_solve(missing.T, factor).T
    return new


def input_mean(module: nn.Module, inputs: list[Tensor]) -> Tensor:
    """Mean of each input feature over all rows and ranks, float32 (inputs,)."""
    total = module.weight.new_zeros(weight_matrix(module).shape[1], dtype=torch.float64)
    count: float = 0
    for x in inputs:
        rows = input_rows(module, x)
        total += rows.double().sum(0)
        count += len(rows)
    total, count = over_ranks(total, count)
    return (total / max(count, 1)).float()


def mean_gram(module: nn.Module, inputs: list[Tensor], origin: Tensor | None) -> tuple[Tensor, int]:
    """Gram matrix of a layer's inputs divided by their number of rows, over all ranks, and that number.

    Args:
        module: The layer.
        inputs: Its inputs, one tensor per batch.
        origin: Subtracted from every row, (inputs,): with the mean, the result is the covariance. None:
            nothing is subtracted.

    Returns:
        ``X.T @ X / n``, float32 (inputs, inputs), and n.
    """
    width = weight_matrix(module).shape[1]
    total = module.weight.new_zeros(width, width, dtype=torch.float64)
    count: float = 0
    for x in inputs:
        rows = input_rows(module, x)
        add_gram(total, rows if origin is None else rows - origin)
        count += len(rows)
    total, count = over_ranks(total, count)
    return mirror(total.div_(max(count, 1)).float()), int(count)


def is_matrix_product(module: nn.Module) -> bool:
    """Whether a module is a linear layer or an ungrouped 2-D convolution."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def can_refit(model: nn.Module, group: UnitGroup) -> bool:
    """Whether all layers that read a group's units can be refitted to compensate removed ones.

    Not if a unit's output depends on the other units of the group, as after a layer norm over them or if
    they are tokens: then the outputs of kept units change with the removal.
    """
    tokens = group.repeated or any(cut.side == 'flag' for cut in group.cuts)
    if tokens or any(converter == 'SlimLayerNorm' for _, converter in group.converts):
        return False
    cuts = input_cuts(group)
    return bool(cuts) and all(
        cut.dim == 1
        and cut.name.endswith('.weight')
        and is_matrix_product(model.get_submodule(cut.name.rpartition('.')[0]))
        for cut in cuts
    )


def kept_inputs(model: nn.Module, state: PruneState) -> dict[str, Tensor]:
    """The inputs that remain of every layer to refit: bool (inputs,) by module name, True where kept."""
    kept: dict[str, Tensor] = {}
    groups = without_removed_layers(state)
    refitted = {c.name for g in groups if can_refit(model, g) for c in input_cuts(g)}
    for group in groups:
        removed = state.removed(group.name)
        for cut in input_cuts(group):
            if cut.name not in refitted:
                continue
            path = cut.name.rpartition('.')[0]
            shape = model.get_submodule(path).weight.shape
            taps = shape[2:].numel()  # of a convolution's kernel
            keep = kept.setdefault(path, torch.ones(shape[1], taps, dtype=torch.bool))
            keep[cut.indices(group.size)[removed].flatten()] = False
    return {path: keep.flatten() for path, keep in kept.items()}


def mask_uncompensated(model: nn.Module, state: PruneState) -> None:
    """Mask, in place, the removed units that no refit compensates: later layers are fitted without them."""
    groups = {
        group.name: group for group in without_removed_layers(state) if not can_refit(model, group)
    }
    mask(model, PruneState(groups, {name: state.kept[name] for name in groups}))


@COMPENSATIONS.register_module()
class LeastSquares(Compensation):
    """Refit the layers that read pruned units to reproduce their outputs with all units.

    One forward pass over the calibration data, layer by layer: each reader (``o_proj``, ``down_proj``,
    ``fc2`` ...) is refitted in closed form on the inputs that the readers before it, already refitted,
    produce. A bias is refitted without damping, so the mean output is preserved. Not compensated are units
    with a reader that is neither a linear layer nor an ungrouped 2-D convolution, units under a layer norm
    over them, tokens and whole layers.

    With ``dense_targets``, readers whose output is added to a residual stream also make up for a part of
    what that stream has lost in the layers before them, which takes a second pass beside the first one, of
    the dense model. All of it would be too much: inputs that differ from the dense model's say little about
    the part of the loss that they don't explain, and the fit shrinks.

    Args:
        damping: Ridge penalty on the change of the weights, as a fraction of the mean diagonal of the
            inputs' Gram matrix (of their covariance, for layers with a bias).
        dense_targets: The fraction of the stream's loss to make up for, in [0, 1]; 0: none, and no second
            pass. For language models a half is best.
        dense_share: Fraction of the calibration batches that also run through the dense model for that, in
            [0, 1].

    Source: the optimal brain surgeon update for groups, Hassibi & Stork 1993; as in Kwon et al., "A Fast
    Post-Training Pruning Framework for Transformers", arXiv 2204.09656 (mask tuning), but of all weights.
    Dense targets: after Li et al., "GPTAQ", arXiv 2504.02692, for the residual stream.

    Example:
        >>> prune_cfg = dict(criterion=dict(type='Fisher'), compensation=dict(type='LeastSquares'))
    """

    def __init__(self, damping: float = 0.01, dense_targets: float = 0.0, dense_share: float = 1.0):
        check_number('damping', damping, 0, math.inf)
        for name, value in (('dense_targets', dense_targets), ('dense_share', dense_share)):
            check_fraction(name, value)
        self.damping = float(damping)
        self.dense_targets = float(dense_targets)
        self.dense_share = float(dense_share) if dense_targets else 0.0

    def apply(self, model, state, data, loss):
        """See :meth:`Compensation.apply`."""
        kept = kept_inputs(model, state)
        if not kept:
            print_log('LeastSquares finds nothing to refit', 'current', logging.WARNING)
            return []
        with (
            inference(model),
            observable(model, list(state.groups.values())),
            Bar() as bar,
        ):
            calls = forward_calls(model, data, loss)
            first_call = partial(guarded(loss), model, data.first_sample())
            steps = group_by_input(model, list(kept), first_call)
            streams: dict[str, Stream] = {}
            dense_calls: list[Call] = []
            later: set[str] = set()
            if self.dense_share:
                linear = [n for n in kept if isinstance(model.get_submodule(n), nn.Linear)]
                streams = find_streams(model, linear, first_call)
            if streams:
                dense_calls = first_share(
                    dense_calls_of(model, data, loss, calls), self.dense_share, len(data.batches)
                )
                later = layers_that_run_later(model, steps, first_call)
            mask_uncompensated(model, state)
            task = bar.add_task('refitting layers', total=len(steps))
            underdetermined: list[str] = []
            reads = StreamReads(model, streams)

            def visit(layers: SharedInput, inputs: list[Tensor], dense: list[Tensor]) -> None:
                shifts = {
                    path: stream_shift(
                        model.get_submodule(path),
                        streams[path],
                        inputs,
                        dense,
                        reads.take(path, len(dense), len(inputs)),
                    )
                    for path in layers
                    if path in streams
                }
                rows = self.refit_layers(model, layers, inputs, kept, shifts)
                underdetermined.extend(
                    f'{path} ({rows} rows, {int(kept[path].sum())} inputs)'
                    for path in layers
                    if rows < kept[path].sum()
                )
                bar.advance(task)

            with reads.watched():
                passes_for(data)(model, calls, steps, visit, dense_calls, later)
        if underdetermined:
            print_log(
                f'LeastSquares had fewer rows than inputs for {len(underdetermined)} layers, such as '
                f'{underdetermined[0]}: the fit may not generalise to other data; raise '
                'prune_cfg.calibration.num_samples',
                'current',
                logging.WARNING,
            )
        if dist.get_world_size() > 1:
            assert_ranks_agree(weights_digest(model), 'the refitted weights')
        modules = {path: model.get_submodule(path) for path in kept}
        return [
            f'{path}.{name}'
            for path, module in modules.items()
            for name in ('weight', *(() if module.bias is None else ('bias',)))
        ]

    def refit_layers(
        self,
        model: nn.Module,
        layers: SharedInput,
        inputs: list[Tensor],
        kept: Mapping[str, Tensor],
        shifts: Mapping[str, Shift] = MappingProxyType({}),
    ) -> int:
        """Refit layers that share an input, in place.

        Layers with a bias share one covariance, the others one Gram matrix.

        Args:
            model: The model.
            layers: Names of the layers.
            inputs: Their input, one tensor per batch.
            kept: From :func:`kept_inputs`.
            shifts: From :func:`.stream_shift`, of layers whose outputs shall differ.

        Returns:
            Number of input rows on all ranks.
        """
        rows = 0
        modules = {path: model.get_submodule(path) for path in layers}
        for biased in (False, True):
            members = {p: m for p, m in modules.items() if (m.bias is not None) == biased}
            if not members:
                continue
            first = next(iter(members.values()))
            mean = input_mean(first, inputs) if biased else None
            gram, rows = mean_gram(first, inputs, mean)
            parameters = [p for m in members.values() for p in (m.weight, m.bias) if p is not None]
            solve = partial(self.solve, members, gram, mean, kept, shifts)
            for parameter, new in zip(
                parameters, tensors_from_rank_0(solve, parameters), strict=True
            ):
                parameter.copy_(new)
        return rows

    def solve(
        self,
        modules: Mapping[str, nn.Module],
        gram: Tensor,
        mean: Tensor | None,
        kept: Mapping[str, Tensor],
        shifts: Mapping[str, Shift] = MappingProxyType({}),
    ) -> list[Tensor]:
        """New values of each module's parameters.

        Args:
            modules: Layers that share an input, by name; all have a bias, or none has.
            gram: From :func:`mean_gram`.
            mean: Of each input feature; for layers with a bias.
            kept: From :func:`kept_inputs`.
            shifts: As for :meth:`refit_layers`.

        Returns:
            Of each module the weight and, if there is one, the bias.
        """
        found = []
        for path, module in modules.items():
            old, keep = weight_matrix(module).float(), kept[path].to(gram.device)
            shift, lift = None, 0.0
            if path in shifts:
                shift = self.dense_targets * shifts[path].product
                lift = self.dense_targets * shifts[path].mean
                if mean is not None:
                    shift -= lift[:, None] * mean
            new = refit(old, gram, keep, self.damping, path, shift)
            found.append(new.view(module.weight.shape).to(module.weight.dtype))
            if mean is not None:
                found.append((module.bias + (old - new) @ mean + lift).to(module.bias.dtype))
        return found

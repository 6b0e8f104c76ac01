"""Least-squares refit of the layers that read pruned units, in closed form."""

import logging
import math
from collections.abc import Mapping
from functools import partial

import torch
from mmengine import dist
from mmengine.logging import print_log
from rich.progress import Progress as Bar
from torch import Tensor, nn

from ...calibration.collect import observable
from ...calibration.data import forward_calls
from ...calibration.layer_inputs import add_gram, input_rows, mirror, over_ranks, weight_matrix
from ...calibration.loss import guarded
from ...calibration.mask_gradients import input_cuts
from ...calibration.one_by_one import passes_for
from ...calibration.sequential import SharedInput, group_by_input
from ...common.distributed import assert_ranks_agree, tensors_from_rank_0, weights_digest
from ...common.eval_mode import inference
from ...common.precision import without_tf32
from ...common.registry import COMPENSATIONS
from ...common.validation import check_number
from ...structure.prune_state import PruneState
from ...structure.slimming import mask, without_removed_layers
from ...structure.unit_group import UnitGroup
from ..optimal_brain_surgeon import damped_factor
from .base import Compensation


@without_tf32()
def refit(weight: Tensor, gram: Tensor, keep: Tensor, damping: float, name: str) -> Tensor:
    """Weights on the kept inputs that best reproduce the output of the weights on all inputs.

    Minimises ``||X W.T - X_S V.T||^2 + d ||V - W_S||^2`` over V, where S are the kept inputs and d is
    ``damping`` times the mean diagonal of their Gram matrix. This is the optimal brain surgeon update
    for the removal of many inputs at once.

    Args:
        weight: W, (outputs, inputs).
        gram: ``X.T @ X``, (inputs, inputs).
        keep: Bool (inputs,), True where kept.
        damping: Fraction of the mean diagonal.
        name: The layer, for messages.

    Returns:
        V, float32 (outputs, inputs), with zero columns for removed inputs.

    Raises:
        UserError: see :func:`damped_factor`.
    """
    new = torch.zeros_like(weight, dtype=torch.float32)
    if not keep.any():
        return new
    factor = damped_factor(gram[keep][:, keep], damping, name, of_inverse=False)
    # V (H_SS + d) = W H_:S + d W_S, so V - W_S = W_R H_RS (H_SS + d)^-1, where R are the removed inputs.
    removed_part = weight[:, ~keep].float() @ gram[~keep][:, keep]
    new[:, keep] = weight[:, keep].float() + torch.cholesky_solve(removed_part.T, factor).T
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

    Args:
        damping: Ridge penalty on the change of the weights, as a fraction of the mean diagonal of the
            inputs' Gram matrix (of their covariance, for layers with a bias).

    Source: the optimal brain surgeon update for groups, Hassibi & Stork 1993; as in Kwon et al., "A Fast
    Post-Training Pruning Framework for Transformers", arXiv 2204.09656 (mask tuning), but of all weights.

    Example:
        >>> prune_cfg = dict(criterion=dict(type='Fisher'), compensation=dict(type='LeastSquares'))
    """

    def __init__(self, damping: float = 0.01):
        check_number('damping', damping, 0, math.inf)
        self.damping = float(damping)

    def apply(self, model, state, data, loss):
        """See :meth:`Compensation.apply`."""
        kept = kept_inputs(model, state)
        if not kept:
            print_log('LeastSquares finds nothing to refit', 'current', logging.WARNING)
            return []
        with (
            inference(model),
            observable(model, list(state.groups.values())),
            Bar(disable=not dist.is_main_process()) as bar,
        ):
            calls = forward_calls(model, data, loss)
            steps = group_by_input(
                model, list(kept), partial(guarded(loss), model, data.first_sample())
            )
            mask_uncompensated(model, state)
            task = bar.add_task('refitting layers', total=len(steps))
            underdetermined: list[str] = []

            def visit(layers: SharedInput, inputs: list[Tensor], _: list[Tensor]) -> None:
                rows = self.refit_layers(model, layers, inputs, kept)
                underdetermined.extend(
                    f'{path} ({rows} rows, {int(kept[path].sum())} inputs)'
                    for path in layers
                    if rows < kept[path].sum()
                )
                bar.advance(task)

            passes_for(data)(model, calls, steps, visit)
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
    ) -> int:
        """Refit layers that share an input, in place.

        Layers with a bias share one covariance, the others one Gram matrix.

        Args:
            model: The model.
            layers: Names of the layers.
            inputs: Their input, one tensor per batch.
            kept: From :func:`kept_inputs`.

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
            solve = partial(self.solve, members, gram, mean, kept)
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
    ) -> list[Tensor]:
        """New values of each module's parameters.

        Args:
            modules: Layers that share an input, by name; all have a bias, or none has.
            gram: From :func:`mean_gram`.
            mean: Of each input feature; for layers with a bias.
            kept: From :func:`kept_inputs`.

        Returns:
            Of each module the weight and, if there is one, the bias.
        """
        found = []
        for path, module in modules.items():
            old, keep = weight_matrix(module).float(), kept[path].to(gram.device)
            new = refit(old, gram, keep, self.damping, path)
            found.append(new.view(module.weight.shape).to(module.weight.dtype))
            if mean is not None:
                found.append((module.bias + (old - new) @ mean).to(module.bias.dtype))
        return found

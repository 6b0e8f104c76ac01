"""Refitting what reads the units that stay, in closed form."""

import math
from functools import partial

import torch
from mmengine import dist
from rich.progress import Progress as Bar
from torch import Tensor, nn

from ..calibration import observable
from ..distributed import check_same, weights_digest
from ..errors import UserError
from ..layer_inputs import input_gram, input_rows, over_ranks, weight_matrix
from ..lockstep import Station, lockstep, stations
from ..obs import damped_factor
from ..registry import COMPENSATIONS
from ..slim import without_removed_layers
from ..sparsify import calls_of, evaluating
from ..state import PruneState
from .base import Compensation


def refit(weight: Tensor, gram: Tensor, keep: Tensor, damping: float, name: str) -> Tensor:
    """Weights on the kept inputs alone that come closest to what all weights put out.

    Minimises ``||X W.T - X_S V.T||^2 + d ||V - W_S||^2`` over V, where S are the kept inputs and d is
    ``damping`` times the mean diagonal of the Gram matrix. This is the optimal-brain-surgeon update
    for the removal of many inputs at once.

    Args:
        weight: W, (outputs, inputs).
        gram: ``X.T @ X``, (inputs, inputs).
        keep: Bool (inputs,).
        damping: Share of the mean diagonal.
        name: The layer, for messages.

    Returns:
        float32 (outputs, inputs), zero in the columns that aren't kept.
    """
    factor = damped_factor(gram[keep][:, keep], damping, name, of_inverse=False)
    # V (H_SS + d) = W H_:S + d W_S, and so V - W_S = W_R H_RS (H_SS + d)^-1 with the removed ones R.
    missed = weight[:, ~keep].float() @ gram[~keep][:, keep]
    new = torch.zeros_like(weight, dtype=torch.float32)
    new[:, keep] = weight[:, keep].float() + torch.cholesky_solve(missed.T, factor).T
    return new


def input_sums(module: nn.Module, inputs: list[Tensor]) -> Tensor:
    """Sum of each input feature over all rows and ranks, float32 (inputs,)."""
    return over_ranks(sum(input_rows(module, x).sum(0) for x in inputs), 0)[0]


def is_matrix_product(module: nn.Module) -> bool:
    """Whether a module multiplies rows of its input by its weight."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def kept_inputs(model: nn.Module, state: PruneState) -> dict[str, Tensor]:
    """Which inputs of the units' readers stay: bool (inputs,) by module, where some go."""
    kept: dict[str, Tensor] = {}
    for group in without_removed_layers(state):
        gone = state.removed(group.name)
        for cut in group.cuts:
            path = cut.name.rpartition('.')[0]
            if cut.side != 'out' or cut.dim != 1:
                continue
            module = model.get_submodule(path)
            if not is_matrix_product(module) or cut.name != f'{path}.weight':
                continue
            taps = module.weight[0, 0].numel()  # of a convolution's kernel
            mask = kept.setdefault(path, torch.ones(module.weight.shape[1], taps, dtype=torch.bool))
            mask[cut.indices(group.size)[gone].flatten()] = False
    return {path: mask.flatten() for path, mask in kept.items()}


@COMPENSATIONS.register_module()
class LeastSquares(Compensation):
    """Refit what reads the remaining units, so that it puts out what it did with all of them.

    One forward pass over the calibration data, batches in lockstep: each reader (``o_proj``,
    ``down_proj``, ``fc2`` ...) is refitted in closed form on inputs that the readers before it, already
    refitted, have made. Biases are refitted too. Readers that are no linear layer or 2-D convolution
    stay as they are.

    Args:
        damping: Share of the mean diagonal of the inputs' Gram matrix by which the weights are held
            where they were.

    Source: the optimal-brain-surgeon step for groups, Hassibi & Stork 1993; as in Kwon et al., "A Fast
    Post-Training Pruning Framework for Transformers", arXiv 2204.09656 (mask tuning), but of all weights.

    Example:
        >>> prune_cfg = dict(criterion=dict(type='Fisher'), compensation=dict(type='LeastSquares'))
    """

    def __init__(self, damping: float = 0.01):
        number = isinstance(damping, int | float) and not isinstance(damping, bool)
        if not number or not 0 < damping < math.inf:
            raise UserError(f'damping is {damping!r}; it must be a number > 0')
        self.damping = float(damping)

    def apply(self, model, state, data, loss):
        """See :meth:`Compensation.apply`."""
        kept = kept_inputs(model, state)
        if not kept:
            return []
        with (
            evaluating(model),
            observable(model, list(state.groups.values())),
            Bar(disable=not dist.is_main_process()) as bar,
        ):
            stops = stations(model, list(kept), partial(loss, model, data.first_sample()))
            task = bar.add_task('refitting layers', total=len(stops))

            def visit(station: Station, inputs: list[Tensor]) -> None:
                for path in station:
                    self.refit_layer(path, model.get_submodule(path), inputs, kept[path])
                bar.advance(task)

            lockstep(model, calls_of(model, data, loss), stops, visit)
        if dist.get_world_size() > 1:
            check_same(weights_digest(model), 'the refitted weights')
        return [f'{path}.weight' for path in kept]

    def refit_layer(self, path: str, module: nn.Module, inputs: list[Tensor], keep: Tensor) -> None:
        """Refit one reader, in place."""
        gram, rows = input_gram(module, inputs)
        weight, keep = weight_matrix(module).float(), keep.to(gram.device)
        if module.bias is not None:  # it is the weight of an input that is always 1
            sums = input_sums(module, inputs)
            last = torch.cat([sums, sums.new_tensor([rows])])
            gram = torch.cat([torch.cat([gram, sums[:, None]], 1), last[None]])
            weight = torch.cat([weight, module.bias[:, None].float()], 1)
            keep = torch.cat([keep, keep.new_ones(1)])
        new = refit(weight, gram / max(rows, 1), keep, self.damping, path)
        if module.bias is not None:
            module.bias.copy_(new[:, -1])
            new = new[:, :-1]
        module.weight.copy_(new.reshape(module.weight.shape))

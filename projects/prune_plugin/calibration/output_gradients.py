"""How much the loss depends on each output of layers: squared gradients."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..common.distributed import sum_over_ranks
from ..common.errors import UserError
from ..common.eval_mode import evaluation_mode
from ..common.precision import scoring_precision
from ..common.progress import Bar
from ..common.random_state import kept_random_state, seed_everything
from .data import CalibrationData
from .layer_inputs import weight_matrix
from .loss import checked_loss, guarded


def output_gradients(
    model: nn.Module,
    names: Sequence[str],
    data: CalibrationData,
    loss: Callable[[nn.Module, Any], Tensor],
    share: float,
    key: str = 'prune_cfg.sparsifier.weigh_outputs',
) -> dict[str, Tensor]:
    """Root mean square, over all rows and ranks, of the loss's gradient with respect to layers' outputs.

    Args:
        model: The model; its weights are float32 meanwhile.
        names: Linear layers and convolutions; channels are the last dimension of a linear layer's output,
            and the second of a convolution's.
        data: Calibration batches.
        loss: Gives the loss of the model on a batch.
        share: Fraction of the batches, the first ones, in (0, 1]; at least one.
        key: What asks for them, for messages.

    Returns:
        By name, float64 (outputs,).

    Raises:
        UserError: the loss is no scalar, or doesn't depend on a layer.
    """
    modules = {name: model.get_submodule(name) for name in names}
    sums = {
        n: m.weight.new_zeros(len(weight_matrix(m)), dtype=torch.float64)
        for n, m in modules.items()
    }
    rows = {n: m.weight.new_zeros((), dtype=torch.float64) for n, m in modules.items()}
    batches = max(1, round(share * len(data.batches)))

    def add(gradient: Tensor, name: str) -> None:
        dim = 1 if isinstance(modules[name], nn.Conv2d) else -1
        by_row = gradient.detach().double().movedim(dim, -1).flatten(0, -2)
        sums[name] += by_row.square().sum(0)
        rows[name] += len(by_row)

    def ran(module: nn.Module, args: tuple, output: Tensor, name: str) -> None:
        if not output.requires_grad:
            output.requires_grad_()
        output.register_hook(partial(add, name=name))

    loss = guarded(loss)
    with (
        evaluation_mode(model),
        kept_random_state(),
        torch.enable_grad(),
        scoring_precision(model, 'float32'),
        Bar() as bar,
    ):
        asked = {p: p.requires_grad for p in model.parameters()}
        for parameter in asked:
            parameter.requires_grad_(False)
        handles = [m.register_forward_hook(partial(ran, name=n)) for n, m in modules.items()]
        task = bar.add_task('gradients of outputs', total=len(data))
        try:
            for number, _, batch in data:
                if number >= batches:
                    break
                seed_everything(data.seed + number)
                checked_loss(loss(model, batch), differentiable=True).backward()
                bar.advance(task)
        finally:
            for handle in handles:
                handle.remove()
            for parameter, value in asked.items():
                parameter.requires_grad_(value)
    sum_over_ranks(sums)
    sum_over_ranks(rows)
    found = {name: (total / rows[name].clamp_min(1)).sqrt() for name, total in sums.items()}
    for name, weights in found.items():
        if not bool(torch.isfinite(weights).all()):
            raise UserError(f'{key}: the gradients at {name} are not finite')
        if not bool(weights.any()):
            raise UserError(
                f'{key}: the loss does not depend on the outputs of {name}; '
                'switch it off, or name the layer in prune_cfg.exclude'
            )
    return found

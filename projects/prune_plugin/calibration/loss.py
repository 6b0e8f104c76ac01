"""The calibration loss: the training loss with optional weights on its parts."""

import math
import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..common.errors import UserError, first_line, format_value
from ..common.model_interface import loss_task_of
from ..common.patterns import check_matches, matches

#: (model, batch) -> scalar loss, the mean over the batch's samples.
LossFunction = Callable[[nn.Module, Any], Tensor]


def mmengine_loss(
    model: nn.Module, batch: Any, weights: Mapping[str, float] | None = None
) -> Tensor:
    """Training loss of an MMEngine model on a batch, a scalar.

    Args:
        model: The model, not wrapped.
        batch: A batch as its dataloader gives it.
        weights: Factors on parts of the loss; see :func:`weighted_losses`.

    Raises:
        UserError: it is a model of another kind.
    """
    if not hasattr(model, 'data_preprocessor'):
        raise UserError(
            f'{type(model).__name__} is no model of MMEngine, so how to run it on a batch has to be said: '
            'plan(model, data, loss=...) and apply(model, plan, data, loss=...), a function (model, batch) '
            '-> loss'
        )
    data = model.data_preprocessor(batch, True)
    losses = model._run_forward(data, mode='loss')
    if weights:
        losses = weighted_losses(losses, weights, loss_task_of(model))
    return model.parse_losses(losses)[0]


def guarded(loss: LossFunction) -> LossFunction:
    """A loss function that tells what goes wrong in it; :func:`mmengine_loss` stays as it is.

    Args:
        loss: The caller's.

    Returns:
        The same function; what it raises is the cause of a :class:`UserError`.

    Raises:
        UserError: it is no function.
    """
    if (loss.func if isinstance(loss, partial) else loss) is mmengine_loss:
        return loss
    if not callable(loss):
        raise UserError(
            f'loss is {format_value(loss)}; it must be a function (model, batch) -> a scalar tensor'
        )

    def run(model: nn.Module, batch: Any) -> Tensor:
        try:
            return loss(model, batch)
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the caller's own code may raise anything
            raise UserError(
                f'loss(model, batch) fails on a batch of the calibration data '
                f'({type(error).__name__}: {first_line(error)}); give data that the model can read, and a '
                'loss that can be called so'
            ) from error

    return run


def checked_loss(value: Any, differentiable: bool) -> Tensor:
    """What a loss function gave, if it is a tensor.

    Args:
        value: What it gave.
        differentiable: Whether gradients are needed, so that it must be a single number.

    Raises:
        UserError: it is something else.
    """
    if isinstance(value, Tensor) and (value.numel() == 1 or not differentiable):
        return value
    given = (
        f'a tensor of shape {tuple(value.shape)}'
        if isinstance(value, Tensor)
        else format_value(value)
    )
    raise UserError(
        f'loss(model, batch) gives {given}; it must be a scalar tensor that is computed by the model, such '
        'as model(batch).square().mean()'
    )


def weighted_losses(
    losses: Mapping[str, Any],
    weights: Mapping[str, float],
    task_of: Callable[[str], str] | None = None,
) -> dict[str, Any]:
    """Multiply each loss by the weights whose keys match it; without a match it is unchanged.

    Args:
        losses: Tensors, or lists of tensors, by name, as a model returns them.
        weights: Factors by task with ``task_of``, else by regular expressions on the losses' names.
        task_of: ``model.loss_task``: from the name of a loss to its task.

    Raises:
        UserError: a key matches no loss.
    """
    names = [name for name in losses if 'loss' in name]
    labels = {name: task_of(name) if task_of else name for name in names}
    fits = operator.eq if task_of else matches
    what = 'tasks' if task_of else 'losses'
    check_matches('prune_cfg.calibration.loss_weights', weights, labels.values(), what, fits)
    result = dict(losses)
    for name, label in labels.items():
        factor = math.prod(weight for key, weight in weights.items() if fits(key, label))
        value = losses[name]
        result[name] = [v * factor for v in value] if isinstance(value, list) else value * factor
    return result

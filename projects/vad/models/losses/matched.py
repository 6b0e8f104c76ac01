"""What the losses of matched queries share."""

import torch
from mmdet.models.losses import L1Loss, l1_loss
from mmdet.utils import reduce_mean
from torch import Tensor

from ..assigners import Matches


def with_loss_weight(cost: dict, loss: torch.nn.Module) -> dict:
    """The config of a match cost; where it has no weight, with that of the loss it stands for."""
    return {'weight': loss.loss_weight, **cost}


def average_factor(matches: Matches) -> Tensor:
    """Pairs in a batch, averaged over the processes, at least 1: a scalar on the device."""
    number = matches.query.new_full((), matches.num_pairs, dtype=torch.float32)
    return reduce_mean(number).clamp(min=1)


def weighted(
    loss: torch.nn.Module,
    pred: Tensor,
    target: Tensor,
    weight: Tensor,
    avg_factor: Tensor | None = None,
) -> Tensor:
    """``loss(pred, target, weight, avg_factor)``.

    MMDetection's L1Loss first asks the device whether any weight counts; its function gives the same.
    """
    if type(loss) is L1Loss:
        reduced = dict(reduction=loss.reduction, avg_factor=avg_factor)
        return loss.loss_weight * l1_loss(pred, target, weight, **reduced)
    return loss(pred, target, weight, avg_factor=avg_factor)


def classification_loss(
    loss: torch.nn.Module, scores: Tensor, labels: Tensor, matches: Matches, avg_factor: Tensor
) -> list[Tensor]:
    """The classes' loss in each decoder layer, over all queries; unmatched ones are background.

    Args:
        loss: A loss of MMDetection that takes ``num_classes`` as the label of the background.
        scores: Logits ``(L, B, Q, C)``.
        labels: Labels of the batch's truths, concatenated.
        matches: Which queries stand for them.
        avg_factor: See :func:`average_factor`.
    """
    targets = torch.full(scores.shape[:3], scores.shape[3], dtype=torch.long, device=scores.device)
    layer = torch.arange(len(scores), device=scores.device)[:, None]
    targets[layer, matches.batch, matches.query] = labels[matches.gt]
    return [
        loss(s.flatten(0, 1), t.flatten(), avg_factor=avg_factor)
        for s, t in zip(scores, targets, strict=True)
    ]


def name_by_layer(losses: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    """Names as in the logs: the last layer's as they are, the others' after ``d0.``, ``d1.``, ...

    What isn't a number becomes 0, so that one bad sample doesn't end a training run.
    """
    named = {key: values[-1] for key, values in losses.items()}
    for i in range(max(map(len, losses.values())) - 1):
        named |= {f'd{i}.{key}': v[i] for key, v in losses.items() if len(v) > i + 1}
    return {key: torch.nan_to_num(value) for key, value in named.items()}

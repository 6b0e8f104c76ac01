"""What detectors of mmdet ask to be told beside the images."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..common.errors import UserError, first_line
from ..common.eval_mode import evaluation_mode
from ..common.model_interface import dummy_inputs_of, offers_dummy_inputs, profile_batch_size_of

#: Base classes of detectors whose plain forward pass asks for the images' sizes.
ASKING = {'DetectionTransformer', 'TwoStageDetector'}


def needed_samples(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """Keyword arguments of a forward call of ``model`` beside the images.

    Args:
        model: Any model.
        images: Of shape (batch, channels, height, width).

    Returns:
        ``{'data_samples': ...}`` with the size of every image for DETR and its kin and for two-stage
        detectors; nothing for all others.
    """
    if not ASKING & {c.__name__ for c in type(model).__mro__}:
        return {}
    from mmdet.structures import DetDataSample

    size = tuple(images.shape[-2:])
    sizes = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    about = dict(dict.fromkeys(sizes, size), scale_factor=(1.0, 1.0))
    return dict(data_samples=[DetDataSample(metainfo=about) for _ in images])


#: Positional and keyword arguments of one forward call.
Example = tuple[tuple, dict[str, Any]]


def example_input(
    model: nn.Module, batch_size: int | None = 1, input_shape: Sequence[int] | None = None
) -> Example | None:
    """Arguments for a forward call, without touching a data set.

    Args:
        model: Asked first: ``model.dummy_inputs``, a method ``(batch_size) -> dict`` or (Hugging
            Face) a property, gives keyword arguments.
        batch_size: Samples in the batch; None: as many as are usual for the model.
        input_shape: Shape of one sample, for models without ``dummy_inputs``. Detectors of mmdet that ask
            for the images' sizes are told them.

    Returns:
        The arguments, or None where nothing says what the input looks like.
    """
    weight = next(model.parameters())
    batch_size = batch_size or profile_batch_size_of(model)
    if offers_dummy_inputs(model):
        kwargs = dummy_inputs_of(model, batch_size)
        return (), {name: on_device(value, weight.device) for name, value in kwargs.items()}
    if input_shape is not None:
        inputs = weight.new_zeros(batch_size, *input_shape)
        return (inputs,), needed_samples(model, inputs)
    return None


def on_device(value: Any, device: torch.device) -> Any:
    """``value`` with all tensors in it on a device; dicts and lists are gone through."""
    if isinstance(value, Mapping):
        return {name: on_device(item, device) for name, item in value.items()}
    if isinstance(value, list):
        return [on_device(item, device) for item in value]
    return value.to(device) if hasattr(value, 'to') else value


def needed_example(
    model: nn.Module, input_shape: Sequence[int] | None, batch_size: int | None, key: str
) -> Example:
    """:func:`example_input`, or a :class:`UserError` that says what ``key`` is missing."""
    example = example_input(model, batch_size, input_shape)
    if example is None:
        raise UserError(
            f'{key} needs an example input: set prune_cfg.profile.input_shape, e.g. (3, 224, 224)'
        )
    return example


def tried_example(
    model: nn.Module, input_shape: Sequence[int] | None, batch_size: int | None, key: str
) -> Example:
    """:func:`needed_example` that the model is known to run on."""
    example = needed_example(model, input_shape, batch_size, key)
    check_shape(model, input_shape)
    return example


@torch.no_grad()
def check_shape(model: nn.Module, input_shape: Sequence[int] | None) -> None:
    """Raise :class:`UserError` for a model that doesn't run on one tensor of ``input_shape``.

    A model with ``dummy_inputs`` isn't run: what those give is its own affair.
    """
    if input_shape is None or offers_dummy_inputs(model):
        return
    args, kwargs = needed_example(model, input_shape, 1, 'prune_cfg.profile')
    try:
        with evaluation_mode(model, fused=True):
            model(*args, **kwargs)
    except Exception as error:  # the model's own code may raise anything
        # first_line gives the type's name where there are no words: not twice
        words = dict.fromkeys((type(error).__name__, first_line(error)))
        why = ': '.join(words).rstrip(' .:')
        raise UserError(
            f'prune_cfg.profile.input_shape is {list(input_shape)}, but the forward pass of '
            f'{type(model).__name__} fails on one tensor of that shape ({why}); give another shape, or '
            'leave it out: FLOPs and latency are then not measured'
        ) from error

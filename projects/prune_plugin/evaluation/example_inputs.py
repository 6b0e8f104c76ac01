"""Example inputs for forward calls, without reading a data set."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..common.errors import UserError, first_line
from ..common.eval_mode import evaluation_mode
from ..common.model_interface import dummy_inputs_of, offers_dummy_inputs, profile_batch_size_of

#: Base classes of mmdet's detectors whose ``forward(mode='tensor')`` requires ``data_samples``.
NEEDS_DATA_SAMPLES = {'DetectionTransformer', 'TwoStageDetector'}

#: Those whose ``forward(mode='tensor')`` matches boxes to the truth, if they have a box head.
NEEDS_TRUTH = 'SingleStageInstanceSegmentor'


def reads_truth(model: nn.Module) -> bool:
    """Whether no forward pass of a model does without ground truth, as that of mmdet's YOLACT."""
    names = {c.__name__ for c in type(model).__mro__}
    return NEEDS_TRUTH in names and getattr(model, 'bbox_head', None) is not None


def data_sample_kwargs(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """Keyword arguments that a forward call of ``model`` requires in addition to the images.

    Args:
        model: Any model.
        images: Tensor of shape (batch, channels, height, width).

    Returns:
        ``{'data_samples': ...}`` with the sizes of the images for mmdet's DETR variants and two-stage
        detectors; an empty dict for other models.
    """
    if not NEEDS_DATA_SAMPLES & {c.__name__ for c in type(model).__mro__}:
        return {}
    from mmdet.structures import DetDataSample

    size = tuple(images.shape[-2:])
    sizes = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    metainfo = dict(dict.fromkeys(sizes, size), scale_factor=(1.0, 1.0))
    return dict(data_samples=[DetDataSample(metainfo=metainfo) for _ in images])


#: Positional and keyword arguments of one forward call.
Example = tuple[tuple, dict[str, Any]]


def example_input(
    model: nn.Module, batch_size: int | None = 1, input_shape: Sequence[int] | None = None
) -> Example | None:
    """Arguments for a forward call, on the model's device.

    Args:
        model: The model. Its ``dummy_inputs``, a method ``(batch_size) -> dict`` or a property (Hugging
            Face), takes precedence and provides keyword arguments.
        batch_size: Samples in the batch; None: the model's ``profile_batch_size``, by default 8.
        input_shape: Shape of one sample, for models without ``dummy_inputs``; the input is then zeros.

    Returns:
        The arguments, or None for a model without ``dummy_inputs`` if ``input_shape`` is None.
    """
    weight = next(model.parameters())
    batch_size = batch_size or profile_batch_size_of(model)
    if offers_dummy_inputs(model):
        kwargs = dummy_inputs_of(model, batch_size)
        return (), {name: on_device(value, weight.device) for name, value in kwargs.items()}
    if input_shape is not None:
        return zeros_example(model, batch_size, input_shape)
    return None


def zeros_example(model: nn.Module, batch_size: int, input_shape: Sequence[int]) -> Example:
    """A batch of zeros as the only positional argument, with :func:`data_sample_kwargs`."""
    inputs = next(model.parameters()).new_zeros(batch_size, *input_shape)
    return (inputs,), data_sample_kwargs(model, inputs)


def on_device(value: Any, device: torch.device) -> Any:
    """Move all tensors in ``value`` to ``device``, recursively through dicts and lists."""
    if isinstance(value, Mapping):
        return {name: on_device(item, device) for name, item in value.items()}
    if isinstance(value, list):
        return [on_device(item, device) for item in value]
    return value.to(device) if hasattr(value, 'to') else value


def require_example_input(
    model: nn.Module, input_shape: Sequence[int] | None, batch_size: int | None, key: str
) -> Example:
    """:func:`example_input`; raise :class:`UserError` if there is none. ``key`` is what needs it."""
    if reads_truth(model):
        raise UserError(
            f'{key} needs a forward pass on images alone, but that of {type(model).__name__} reads ground '
            'truth, too; leave it out'
        )
    example = example_input(model, batch_size, input_shape)
    if example is None:
        raise UserError(
            f'{key} needs an example input: set prune_cfg.profile.input_shape, e.g. (3, 224, 224)'
        )
    return example


def checked_example_input(
    model: nn.Module, input_shape: Sequence[int] | None, batch_size: int | None, key: str
) -> Example:
    """:func:`require_example_input`, after :func:`check_shape` has run the model on the input shape."""
    example = require_example_input(model, input_shape, batch_size, key)
    check_shape(model, input_shape)
    return example


def example_of(
    model: nn.Module, profile: Mapping[str, Any], batch_size: int | None, key: str
) -> Example:
    """What a budget runs a model on: what the user gave a plan, or :func:`checked_example_input`.

    Args:
        model: The model.
        profile: ``prune_cfg.profile``, and ``example`` if the user gave one.
        batch_size: As for :func:`example_input`, like ``key``.
        key: As for :func:`require_example_input`.
    """
    given = profile.get('example')
    if given is not None:
        return given
    return checked_example_input(model, profile.get('input_shape'), batch_size, key)


@torch.no_grad()
def check_shape(model: nn.Module, input_shape: Sequence[int] | None) -> None:
    """Raise :class:`UserError` if the forward pass fails on one sample of ``input_shape``.

    Models with ``dummy_inputs`` are not run, as these take precedence over ``input_shape``.
    """
    if input_shape is None or offers_dummy_inputs(model):
        return
    args, kwargs = zeros_example(model, 1, input_shape)
    try:
        with evaluation_mode(model, fused=True):
            model(*args, **kwargs)
    except Exception as error:  # the model's own code may raise anything
        # first_line returns the type's name if the message is empty: don't repeat it
        unique = dict.fromkeys((type(error).__name__, first_line(error)))
        reason = ': '.join(unique).rstrip(' .:')
        raise UserError(
            f'prune_cfg.profile.input_shape is {list(input_shape)}, but the forward pass of '
            f'{type(model).__name__} fails on one tensor of that shape ({reason}); give another shape, or '
            'leave it out: FLOPs and latency are then not measured'
        ) from error

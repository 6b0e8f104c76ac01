"""What detectors of mmdet ask to be told beside the images."""

from typing import Any

from torch import Tensor, nn

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

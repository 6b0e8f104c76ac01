"""``--save-exported``: a model's forward pass as a ``.pt2`` file, which PyTorch alone runs."""

import io
import os
from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from torch import nn

from ...common.errors import UserError
from ...common.fileio import atomic_write, output_directory
from .tracing import COMPARED, largest_difference, said, tensors_of, trace

FLAG = '--save-exported'


def save_exported(
    model: nn.Module, path: str | os.PathLike, input_shape: Sequence[int] | None = None
) -> float:
    """Write ``model``'s forward pass for ``torch.export.load``, once it has been read and compared.

    Args:
        model: In evaluation mode, dense or slim.
        path: The file; it appears whole or not at all.
        input_shape: Shape of one sample, for models without ``dummy_inputs``.

    Returns:
        The largest difference from the model on random inputs, relative to the output's scale.

    Raises:
        UserError: the forward pass can't be traced, or the file gives something else.

    Example:
        >>> save_exported(model, 'vit.pt2')
        >>> logits = torch.export.load('vit.pt2').module()(inputs=images)
    """
    traced = trace(model, FLAG, input_shape)
    buffer = io.BytesIO()
    try:
        torch.export.save(traced.program, buffer)
    except Exception as error:  # of several kinds, without a base class
        raise UserError(
            f'{FLAG}: torch.export cannot save what {traced.name} returns or does ({said(error)}); '
            'leave the flag out'
        ) from error
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()

    @torch.no_grad()
    def run(example):
        return tensors_of(loaded(*example[0], **example[1]))

    worst = largest_difference(traced, run, FLAG, 'leave the flag out')
    with output_directory(os.path.dirname(path) or '.', FLAG), atomic_write(path, 'wb') as file:
        file.write(buffer.getvalue())
    print_log(
        f'{FLAG} {path}: {len(buffer.getvalue()) / 1e6:.3g} MB; read again it differs from the model '
        f"by {worst:.2g} of the output's scale at batch sizes {' and '.join(map(str, COMPARED))}",
        'current',
    )
    return worst

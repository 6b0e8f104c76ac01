"""``--save-exported``: a model's forward pass as a ``.pt2`` file, which needs only PyTorch to run."""

import io
import os
from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ...common.errors import UserError
from ...common.fileio import atomic_write, output_directory
from ...evaluation.example_inputs import Example
from .tracing import COMPARED, describe_error, largest_difference, tensors_of, trace

FLAG = '--save-exported'


def save_exported(
    model: nn.Module, path: str | os.PathLike, input_shape: Sequence[int] | None = None
) -> float:
    """Write ``model``'s forward pass for ``torch.export.load``, after reloading it and comparing outputs.

    Args:
        model: Dense or slim model in evaluation mode.
        path: The file, written atomically.
        input_shape: Shape of one sample, for models without ``dummy_inputs``.

    Returns:
        The largest difference from the model on random inputs, relative to the output's largest value.

    Raises:
        UserError: the forward pass can't be traced or saved, or the reloaded one computes another result.

    Example:
        >>> save_exported(model, 'vit.pt2')
        >>> logits = torch.export.load('vit.pt2').module()(inputs=images)
    """
    traced = trace(model, FLAG, input_shape)
    buffer = io.BytesIO()
    try:
        torch.export.save(traced.program, buffer)
    except Exception as error:  # of several classes without a common base
        raise UserError(
            f'{FLAG}: torch.export cannot save what {traced.name} returns or does '
            f'({describe_error(error)}); leave the flag out'
        ) from error
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()

    @torch.no_grad()
    def run(example: Example) -> list[Tensor]:
        return tensors_of(loaded(*example[0], **example[1]))

    worst = largest_difference(traced, run, FLAG, 'leave the flag out')
    with output_directory(os.path.dirname(path) or '.', FLAG), atomic_write(path, 'wb') as file:
        file.write(buffer.getvalue())
    print_log(
        f'{FLAG} {path}: {len(buffer.getvalue()) / 1e6:.3g} MB; reloaded, it differs from the model '
        f"by {worst:.2g} of the output's scale at batch sizes {' and '.join(map(str, COMPARED))}",
        'current',
    )
    return worst

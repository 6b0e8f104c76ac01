"""Selection and checks of the weights that unstructured pruning may set to zero."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..common.errors import UserError
from ..common.model_argument import check_model
from ..common.patterns import matches_within, select

#: mmcv's convolutions of sparse tensors.
SPARSE_CONVOLUTIONS = (
    'SparseConv2d', 'SparseConv3d', 'SubMConv2d', 'SubMConv3d', 'SparseInverseConv2d',
    'SparseInverseConv3d', 'SparseConvTranspose2d', 'SparseConvTranspose3d',
)  # fmt: skip


def select_weights(
    weights: Mapping[str, Tensor], include: Sequence[str], exclude: Sequence[str]
) -> dict[str, Tensor]:
    """The weights that one ``include`` pattern matches and no ``exclude`` pattern."""
    return {name: weights[name] for name in select(weights, include, exclude, matches_within)}


def prunable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of linear, convolution and multi-head attention layers, by parameter name.

    GPT-2's ``Conv1D`` is a linear layer too. A weight tied to an embedding (the output layer of many
    language models) is excluded.
    """
    check_model(model)
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    weights = {}
    for prefix, module in model.named_modules():
        layer = isinstance(module, kinds) or hasattr(module, 'in_proj_weight')
        if layer or is_transposed(module):
            for name, parameter in module.named_parameters(prefix, recurse=False):
                if parameter.dim() > 1 and id(parameter) not in embeddings:
                    weights[name] = parameter
    return weights


def stacked_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Other weights that multiply: of stacked experts, deformable and sparse convolutions, by name."""
    weights = {}
    for prefix, module in model.named_modules():
        kind = type(module).__name__
        experts = 'expert' in kind.lower()
        if experts or 'DeformConv2d' in kind or kind in SPARSE_CONVOLUTIONS:
            for name, parameter in module.named_parameters(prefix, recurse=False):
                if parameter.dim() > 2:
                    weights[name] = parameter
    return weights


def is_transposed(module: nn.Module) -> bool:
    """Whether a layer is a linear one with its weight as (inputs, outputs): transformers' ``Conv1D``."""
    weight = getattr(module, 'weight', None)
    return type(module).__name__ == 'Conv1D' and isinstance(weight, Tensor) and weight.dim() == 2


def check_finite(weights: Mapping[str, Tensor], source: str = '') -> None:
    """Raise :class:`UserError` if a weight holds NaN or infinity; the message names the first one.

    Integer tensors, meta tensors, sparse tensors and values that are no tensors are not checked.

    Args:
        weights: Values by name.
        source: Prefix of the message, such as the checkpoint.
    """
    for name, weight in weights.items():
        is_dense = isinstance(weight, Tensor) and weight.layout == torch.strided
        if not is_dense or weight.is_meta or not weight.is_floating_point():
            continue
        # A sum needs no memory: if it is finite, so are all elements; if not, it may have overflowed.
        if not (weight.sum(dtype=torch.float32).isfinite() or weight.isfinite().all()):
            raise UserError(
                f'{source}{name} holds NaN or infinite numbers; the checkpoint is damaged, or its training '
                'diverged'
            )


def check_no_regrowth(masks: Mapping[str, Tensor], previous_masks: Mapping[str, Tensor]) -> None:
    """Raise :class:`RuntimeError` if ``masks`` (True: kept) keep a weight that an earlier round removed."""
    for name, keep in masks.items():
        if bool((keep.cpu() & ~previous_masks[name].cpu()).any()):
            raise RuntimeError(f'{name} keeps weights that an earlier round removed')

"""RMS norms that count removed features as zeros, written as norms of their dense class."""

from copy import copy, deepcopy

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def with_plain_norms(lm: PreTrainedModel) -> PreTrainedModel:
    """A copy in which each ``SlimRMSNorm`` is one of its dense class that computes the same.

    With ``k`` of ``d`` features kept, ``x / sqrt(sum(x^2) / d + eps) * w`` is
    ``x / sqrt(mean(x^2) + eps * d / k) * w * sqrt(d / k)``. All other tensors are shared.

    Args:
        lm: The model; it is returned itself where there is nothing to change, or no way to.
    """
    slim = {name for name, m in lm.named_modules() if is_slim(m)}
    if not slim or any(parameter.is_meta for parameter in lm.parameters()):
        return lm
    shared = {id(t): t for t in (*lm.parameters(), *lm.buffers())}
    plain = deepcopy(lm, shared)
    for name in slim:
        norm = plain_norm(lm.get_submodule(name))
        if norm is None:
            return lm
        path, _, own = name.rpartition('.')
        setattr(plain.get_submodule(path), own, norm)
    return plain


def is_slim(module: nn.Module) -> bool:
    """Whether a module is a ``SlimRMSNorm``."""
    return any(kind.__name__ == 'SlimRMSNorm' for kind in type(module).__mro__)


@torch.no_grad()
def plain_norm(module: nn.Module) -> nn.Module | None:
    """The norm of the dense class that computes the same; None if no weight and epsilon make it so."""
    (name, weight), *others = module.named_parameters(recurse=False)
    epsilons = {k: v for k, v in vars(module).items() if 'eps' in k and type(v) is float}
    if others or len(epsilons) != 1:
        return None
    ((key, epsilon),) = epsilons.items()
    ratio = module.dense_features / len(weight)
    x = torch.linspace(-2, 3, 4 * len(weight)).sin().view(4, -1).to(weight)
    for offset in (0.0, 1.0):  # some classes scale by 1 + weight
        norm = copy(module)
        norm.__class__ = type(module).__mro__[2]  # after its slim subclass and SlimRMSNorm
        del norm.dense_features
        norm._parameters = dict(module._parameters)
        scaled = (weight.float() + offset) * ratio**0.5 - offset
        norm._parameters[name] = nn.Parameter(scaled.to(weight), weight.requires_grad)
        setattr(norm, key, epsilon * ratio)
        if is_close(norm(x), module(x)):
            return norm
    return None


def is_close(first: Tensor, second: Tensor) -> bool:
    """Whether two outputs are equal up to rounding."""
    limit = 16 * torch.finfo(second.dtype).eps
    return bool((first - second).abs().max() <= limit * second.abs().max())

"""Weights for a timm network from a file or the hub: what fits is copied, the rest is logged."""

import logging
import math
import pickle
from pathlib import Path

import timm
import torch
from mmengine.logging import print_log
from mmengine.runner import checkpoint as mm_checkpoint
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor, nn

from projects.prune_plugin.common.errors import UserError

SUFFIXES = ('.safetensors', '.pth', '.pt', '.bin', '.tar')
WRAPPERS = ('state_dict', 'model', 'state_dict_ema', 'model_ema')
PREFIXES = ('', 'backbone.', 'module.', 'module.backbone.', 'model.')


def load_pretrained(network: nn.Module, pretrained: str | bool, arch: str) -> int:
    """Copy pretrained weights into ``network`` and return how many of its tensors were filled.

    Only entries whose name and shape match are taken, after the position embedding and the patch
    kernel were resampled where that is possible. What is left out is logged.

    Args:
        network: The timm model to fill, in place.
        pretrained: A local file (``.safetensors``, ``.pth``), a timm hub name, or True for the
            hub's weights of ``arch``.
        arch: The timm name of ``network``.

    Raises:
        UserError: If the file is missing or unreadable, the download fails, or nothing matches.
    """
    if isinstance(pretrained, str) and _is_file_name(pretrained):
        weights = read_weights(Path(pretrained).expanduser())
    else:
        weights = download_weights(arch if pretrained is True else pretrained)
    own = network.state_dict()
    weights = _strip_prefix(weights, own)
    adapted = _resample(weights, network)
    taken = {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape}
    if not taken:
        raise UserError(
            f'nothing in model.pretrained={pretrained!r} fits model.arch={arch!r}: it holds names '
            f'like {_names(weights)}, the model wants {_names(own)}'
        )
    network.load_state_dict(taken, strict=False)
    message = f'pretrained={pretrained!r}: {len(taken)} of {len(own)} tensors of {arch} taken'
    if adapted:
        message += f'; resampled: {", ".join(adapted)}'
    other = [k for k in own if k in weights and k not in taken]
    absent = [k for k in own if k not in weights]
    unknown = [k for k in weights if k not in own]
    for names, word in (
        (other, 'of another shape'),
        (absent, 'absent'),
        (unknown, 'not in the model'),
    ):
        if names:
            message += f'; {word}: {_names(names)}'
    print_log(message, logger='current', level=logging.INFO)
    return len(taken)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a ``.safetensors`` or ``torch.save`` file, on the CPU.

    A training checkpoint is unwrapped; nothing but plain data is ever unpickled.

    Raises:
        UserError: If the file is missing, can't be read, holds no tensors, or is pruned.
    """
    if not path.is_file():
        raise UserError(
            f'model.pretrained={str(path)!r} does not exist; give a .safetensors or .pth file'
        )
    try:
        content = _read(path)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as err:
        reason = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        raise UserError(
            f'model.pretrained={str(path)!r} can not be read as weights (truncated, or not a '
            f'.safetensors or .pth file?): {reason}'
        ) from err
    meta = content.get('meta') if isinstance(content, dict) else None
    if isinstance(meta, dict) and 'prune_state' in meta:
        raise UserError(
            f'model.pretrained={str(path)!r} is a pruned checkpoint; give it as CHECKPOINT or '
            'load_from, and dense weights here'
        )
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    tensors = content.items() if isinstance(content, dict) else ()
    tensors = {k: v for k, v in tensors if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        raise UserError(
            f'model.pretrained={str(path)!r} holds no named tensors; a state dict would be valid'
        )
    return tensors


def download_weights(name: str) -> dict[str, Tensor]:
    """Return timm's hub weights of that ``name``, such as ``vit_small_patch16_224.dino``.

    Raises:
        UserError: If timm doesn't know the name or can't fetch it; the cause is chained.
    """
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as err:  # hub clients raise anything from OSError to their own HTTP errors
        reason = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        raise UserError(
            f'model.pretrained={name!r} is neither a local .safetensors or .pth file nor weights '
            f'that timm could download ({type(err).__name__}: {reason})'
        ) from err


def _is_file_name(text: str) -> bool:
    if ':' in text:  # hf-hub:owner/name
        return False
    return text.endswith(SUFFIXES) or Path(text).expanduser().exists() or text[:1] in './~'


def _read(path: Path) -> dict:
    if path.suffix == '.safetensors':
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as err:
            raise ValueError(str(err)) from err
    # MMEngine's training checkpoints carry a few classes of its own; its fork lists them
    allowed = getattr(mm_checkpoint, 'get_torch_safe_globals', list)()
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location='cpu', weights_only=True)


def _strip_prefix(weights: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the one known prefix that makes most names match."""

    def stripped(prefix: str) -> dict[str, Tensor]:
        return {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}

    return max((stripped(prefix) for prefix in PREFIXES), key=lambda d: len(d.keys() & own.keys()))


def _resample(weights: dict[str, Tensor], network: nn.Module) -> list[str]:
    """Resize patch kernel and position embedding in ``weights`` where only their grids differ."""
    own = network.state_dict()
    done = []
    for key, resize in (('patch_embed.proj.weight', _resize_kernel), ('pos_embed', _resize_grid)):
        old, new = weights.get(key), own.get(key)
        if old is None or new is None or old.shape == new.shape or old.ndim != new.ndim:
            continue
        resized = resize(old, new, network)
        if resized is not None:
            weights[key] = resized
            done.append(f'{key} {tuple(old.shape)} to {tuple(new.shape)}')
    return done


def _resize_kernel(old: Tensor, new: Tensor, network: nn.Module) -> Tensor | None:
    """Fit a ``(width, channels, h, w)`` kernel to another h and w; None if more differs."""
    if new.ndim != 4 or old.shape[:2] != new.shape[:2]:
        return None
    return resample_patch_embed(old, list(new.shape[-2:]))


def _resize_grid(old: Tensor, new: Tensor, network: nn.Module) -> Tensor | None:
    """Fit the ``(1, prefix + h * w, width)`` embedding of a square grid to another grid."""
    grid = getattr(getattr(network, 'patch_embed', None), 'grid_size', None)
    if grid is None or new.ndim != 3 or old.shape[2] != new.shape[2]:
        return None
    prefix = new.shape[1] - grid[0] * grid[1]
    tokens = old.shape[1] - prefix
    if prefix < 0 or tokens < 1 or math.isqrt(tokens) ** 2 != tokens:
        return None
    return resample_abs_pos_embed(old, list(grid), num_prefix_tokens=prefix)


def _names(names, limit: int = 6) -> str:
    """List a few names, and how many there are beyond them."""
    names = list(names)
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more

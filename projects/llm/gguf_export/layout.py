"""How wide each layer is, and whether a type of numbers can hold it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import gguf
import numpy as np
from torch import Tensor
from transformers import PreTrainedConfig

from projects.prune_plugin.common.errors import UserError

from .architectures import FLAG, UNEVEN, Architecture

#: Types of the weights of ``--gguf-type``; norms and biases are float32.
TYPES = {
    'f32': gguf.GGMLQuantizationType.F32,
    'f16': gguf.GGMLQuantizationType.F16,
    'bf16': gguf.GGMLQuantizationType.BF16,
    'q8_0': gguf.GGMLQuantizationType.Q8_0,
    'q4_0': gguf.GGMLQuantizationType.Q4_0,
}
FILE_TYPES = {
    'f32': gguf.LlamaFileType.ALL_F32,
    'f16': gguf.LlamaFileType.MOSTLY_F16,
    'bf16': gguf.LlamaFileType.MOSTLY_BF16,
    'q8_0': gguf.LlamaFileType.MOSTLY_Q8_0,
    'q4_0': gguf.LlamaFileType.MOSTLY_Q4_0,
}
#: Numbers that are quantised together, along a row.
BLOCK = 32


@dataclass(frozen=True)
class Layers:
    """Widths of the layers that are left.

    Attributes:
        heads: Query heads of each; 0 without attention.
        kv_heads: Key/value heads of each.
        widths: Neurons of each MLP; 0 without one.
        head_dim: Width of a head.
    """

    heads: list[int]
    kv_heads: list[int]
    widths: list[int]
    head_dim: int

    @property
    def even(self) -> bool:
        """Whether all are equal, and none lacks a part."""
        lists = (self.heads, self.kv_heads, self.widths)
        return all(len(set(each)) == 1 and each[0] for each in lists)


def layers_of(config: PreTrainedConfig, state: Mapping[str, Tensor], count: int) -> Layers:
    """The widths, from the shapes of a state dict whose layers count from 0.

    Raises:
        UserError: the parts of a layer have other names than a Llama's.
    """
    head_dim = getattr(config, 'head_dim', None) or config.hidden_size // config.num_attention_heads

    def rows(layer: int, name: str) -> int:
        tensor = state.get(f'model.layers.{layer}.{name}.weight')
        return 0 if tensor is None else tensor.shape[0]

    def columns(layer: int, name: str) -> int:
        tensor = state.get(f'model.layers.{layer}.{name}.weight')
        return 0 if tensor is None else tensor.shape[1]

    if not any(columns(layer, 'mlp.down_proj') for layer in range(count)):
        raise UserError(
            f'{FLAG}: no layer has self_attn.q_proj and mlp.down_proj, as those of a Llama have; save a '
            'folder with --save-hf instead'
        )
    return Layers(
        [rows(layer, 'self_attn.q_proj') // head_dim for layer in range(count)],
        [rows(layer, 'self_attn.k_proj') // head_dim for layer in range(count)],
        [columns(layer, 'mlp.down_proj') for layer in range(count)],
        head_dim,
    )


def architecture_for(architecture: Architecture, layers: Layers) -> Architecture:
    """The architecture that can say the layers' widths.

    Raises:
        UserError: there is none.
    """
    if layers.even:
        return architecture
    if not architecture.uneven:
        raise UserError(
            f"{FLAG}: the layers differ in width, which llama.cpp's {architecture.name} cannot say; prune "
            "with allocator=dict(type='Uniform'), or save a folder with --save-hf"
        )
    if not any(layers.heads):
        raise UserError(f'{FLAG}: no layer has any attention left, which llama.cpp cannot run')
    return UNEVEN


def check_type(name: str, state: Mapping[str, Tensor]) -> None:
    """Raise :class:`UserError` if a type of numbers can't hold a tensor."""
    for key, tensor in state.items():
        if tensor.dim() != 2 or not tensor.numel():
            continue
        if name.startswith('q') and tensor.shape[1] % BLOCK:
            raise UserError(
                f'--gguf-type {name} takes rows of a multiple of {BLOCK} numbers, and {key} has '
                f'{tensor.shape[1]}; prune with prune_cfg.round_to=dict(mlp={BLOCK}), or take f16'
            )
        if name == 'f16' and float(tensor.abs().max()) > np.finfo(np.float16).max:
            raise UserError(f'--gguf-type f16 cannot hold {key}; take bf16 or f32')


def stored(tensor: Tensor, name: str) -> tuple[np.ndarray, gguf.GGMLQuantizationType]:
    """A tensor's numbers as they go to the file, and their type: vectors stay float32."""
    values = np.ascontiguousarray(tensor.float().cpu().numpy())
    kind = TYPES[name] if tensor.dim() == 2 else gguf.GGMLQuantizationType.F32
    return gguf.quants.quantize(values, kind), kind


def interleaved(tensor: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys, or their biases, for a rotary embedding of neighbours instead of halves."""
    if not heads:
        return tensor
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def mapped(names: Sequence[str], architecture: Architecture, count: int) -> dict[str, str]:
    """llama.cpp's names of the tensors, by transformers'.

    Raises:
        UserError: it has no place for one.
    """
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture.name)
    known = gguf.get_tensor_name_map(kind, count)
    found = {}
    for name in names:
        place = known.get_name(name, try_suffixes=('.weight', '.bias'))
        if place is None:
            raise UserError(f"{FLAG}: llama.cpp's {architecture.name} has no place for {name}")
        found[name] = place
    return found

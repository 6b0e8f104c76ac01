"""FFN neurons: the hidden width between the two (or three) linear layers of an MLP block."""

from torch import nn

from ...common.registry import UNITS
from ..unit_group import UnitGroup
from .attention import linear_cuts
from .finder import UnitFinder, join, require


@UNITS.register_module()
class FFNNeurons(UnitFinder):
    """Hidden neurons of MLP blocks; in gated ones a unit is a gate row, an up row and a down column.

    Example:
        >>> prune_cfg = dict(units=[dict(type='FFNNeurons')])
    """


def hidden_group(
    name: str, module: nn.Module, producers: tuple[str, ...], consumer: str, label: str = ''
) -> UnitGroup:
    """The group of hidden neurons between linear layers of an MLP.

    Args:
        name: The MLP's name in the model.
        module: The MLP.
        producers: Paths, relative to it, of the layers that compute the neurons.
        consumer: Path of the layer that takes them as input.
        label: Name of the group; default: ``name``.

    Raises:
        NotPrunable: one of them isn't a linear layer, or no neurons are left.
    """
    linears = {path: module.get_submodule(path) for path in (*producers, consumer)}
    require(
        all(isinstance(linear, nn.Linear) for linear in linears.values()),
        f'{", ".join(linears)} are not all linear layers',
    )
    size = linears[consumer].in_features
    require(size > 0, 'no neurons are left')
    cuts = []
    for path in producers:
        sections = tuple(range(0, linears[path].out_features, size))
        cuts += linear_cuts(join(name, path), linears[path], 'in', 1, sections)
    cuts += linear_cuts(join(name, consumer), linears[consumer], 'out', 1)
    return UnitGroup(label or name, 'mlp', size, tuple(cuts), name)


@FFNNeurons.layout('Mlp', 'GluMlp')
def timm_mlp(name: str, module: nn.Module) -> list[UnitGroup]:
    """timm's ``Mlp``; in ``GluMlp`` the rows of ``fc1`` are the values followed by the gates."""
    require(hasattr(module, 'fc1') and hasattr(module, 'fc2'), 'no fc1 and fc2')
    require(isinstance(getattr(module, 'norm', nn.Identity()), nn.Identity), 'a norm in between')
    return [hidden_group(name, module, ('fc1',), 'fc2')]


@FFNNeurons.layout('SwiGLU')
def timm_swiglu(name: str, module: nn.Module) -> list[UnitGroup]:
    """timm's ``SwiGLU`` with separate gate and value layers."""
    require(isinstance(getattr(module, 'norm', nn.Identity()), nn.Identity), 'a norm in between')
    return [hidden_group(name, module, ('fc1_g', 'fc1_x'), 'fc2')]


@FFNNeurons.layout('FFN')
def mmcv_ffn(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmcv's ``FFN``: ``num_fcs`` linear layers, so ``num_fcs - 1`` groups."""
    last = module.num_fcs - 1
    paths = [f'layers.{i}.0' if i < last else f'layers.{i}' for i in range(module.num_fcs)]
    return [
        hidden_group(name, module, (paths[i],), paths[i + 1], join(name, paths[i]) if i else name)
        for i in range(last)
    ]


@FFNNeurons.layout('TransformerEncoderLayer', 'TransformerDecoderLayer')
def torch_layer(name: str, module: nn.Module) -> list[UnitGroup]:
    """PyTorch's encoder and decoder layers, which contain ``linear1`` and ``linear2`` directly."""
    if not hasattr(module, 'linear1'):
        return []
    return [hidden_group(name, module, ('linear1',), 'linear2', join(name, 'linear1'))]


@FFNNeurons.layout(
    'LlamaMLP', 'MistralMLP', 'Qwen2MLP', 'Qwen3MLP', 'GemmaMLP', 'Gemma2MLP', 'Gemma3MLP'
)
def gated_mlp(name: str, module: nn.Module) -> list[UnitGroup]:
    """Hugging Face's gated MLP: gate, up and down projections."""
    return [hidden_group(name, module, ('gate_proj', 'up_proj'), 'down_proj')]


@FFNNeurons.layout('Phi3MLP')
def fused_gated_mlp(name: str, module: nn.Module) -> list[UnitGroup]:
    """Phi-3: the rows of ``gate_up_proj`` are the gates followed by the values."""
    return [hidden_group(name, module, ('gate_up_proj',), 'down_proj')]


@FFNNeurons.layout('GPTNeoXMLP')
def neox_mlp(name: str, module: nn.Module) -> list[UnitGroup]:
    """GPT-NeoX: two linear layers."""
    return [hidden_group(name, module, ('dense_h_to_4h',), 'dense_4h_to_h')]


@FFNNeurons.layout('OPTDecoderLayer')
def opt_layer(name: str, module: nn.Module) -> list[UnitGroup]:
    """OPT: the decoder layer contains ``fc1`` and ``fc2`` directly."""
    return [hidden_group(name, module, ('fc1',), 'fc2', join(name, 'fc1'))]

"""A language model whose layers differ in width; README.md in the same folder says where from.

It needs transformers alone. ``config.json`` says in ``slim_widths`` how wide each layer is.
"""

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM


class EmptyAttention(nn.Module):
    """What is left of an attention block that lost all its heads: the output layer's bias, if any.

    Args:
        attention: The block; its (empty) parameters keep their names.
    """

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.layer_idx = attention.layer_idx
        for name, child in attention.named_children():
            self.add_module(name, child)

    def forward(self, hidden_states: torch.Tensor, past_key_values=None, layer_past=None, **kwargs):
        """As the block's own; the cache gets a mark for each token, as it is what counts them."""
        cache = layer_past if past_key_values is None else past_key_values
        if cache is not None:
            batch, length = hidden_states.shape[:2]
            mark = hidden_states.new_zeros(batch, 1, length, 1)
            cache.update(mark, mark, self.layer_idx)
        output = next(child for child in self.children() if getattr(child, 'in_features', 1) == 0)
        return output(hidden_states[..., :0]), None


def cut_layers(model: nn.Module, widths: dict, attributes: dict) -> None:
    """Narrow the decoder layers of a model that is about to be loaded.

    Args:
        model: The model, as wide in all layers as its config says.
        widths: ``{'<tensor>.<dimension>': [length in each layer]}``, named within a layer; None for layers
            without it.
        attributes: ``{'<module>.<attribute>': [number in each layer]}``; the same.
    """
    lists = [child for child in model.get_decoder().children() if isinstance(child, nn.ModuleList)]
    layers = next(list for list in lists if len(list) == model.config.num_hidden_layers)
    for key, lengths in widths.items():
        name, _, dim = key.rpartition('.')
        path, _, own = name.rpartition('.')
        for layer, length in zip(layers, lengths, strict=True):
            if length is None:
                continue
            module = layer.get_submodule(path)
            tensor = getattr(module, own).detach().narrow(int(dim), 0, length).clone()
            is_parameter = own in dict(module.named_parameters(recurse=False))
            setattr(module, own, nn.Parameter(tensor) if is_parameter else tensor)
            if own == 'weight' and isinstance(module, nn.Linear):
                module.out_features, module.in_features = tensor.shape
    for key, numbers in attributes.items():
        path, _, own = key.rpartition('.')
        for layer, number in zip(layers, numbers, strict=True):
            if number is None:
                continue
            setattr(layer.get_submodule(path), own, number)
    for layer in layers:
        for name, module in list(layer.named_children()):
            linears = [child for child in module.children() if isinstance(child, nn.Linear)]
            if hasattr(module, 'layer_idx') and any(not child.in_features for child in linears):
                setattr(layer, name, EmptyAttention(module))


class SlimLlamaConfig(LlamaConfig):
    """The dense model's config, with the widths beside it."""

    model_type = 'slim_llama'


class SlimLlamaForCausalLM(LlamaForCausalLM):
    """The model with narrowed layers."""

    config_class = SlimLlamaConfig

    def __init__(self, config: SlimLlamaConfig):
        super().__init__(config)
        cut_layers(self, config.slim_widths, config.slim_attributes)

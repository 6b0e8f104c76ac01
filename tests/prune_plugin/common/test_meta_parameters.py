"""Modules that are built with shapes alone."""

import torch
from torch import nn

from projects.prune_plugin.common.meta_parameters import parameters_on_meta


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer('angles', torch.arange(3.0))


def test_parameters_are_on_meta_and_buffers_have_values():
    with parameters_on_meta():
        model = Tied()
    assert all(p.is_meta for p in model.parameters())
    assert model.head.weight is model.embed.weight and len(list(model.parameters())) == 2
    assert model.angles.tolist() == [0, 1, 2]
    assert not Tied().scale.is_meta

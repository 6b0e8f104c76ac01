"""Outputs besides the first are left to the trial of the whole model only where that compares them."""

import torch
from torch import nn

from projects.prune_plugin.structure.discovery.call import Call
from projects.prune_plugin.structure.discovery.trials import is_tried_whole


def test_where_the_features_alone_are_compared_nothing_is_relaxed():
    model, x = nn.Linear(2, 2), torch.ones(1, 2)
    assert is_tried_whole(model, Call((x,)))
    assert not is_tried_whole(model, Call((x,), method='extract_feat'))

"""An ``input_shape`` that the model doesn't take is the user's to mend, and trying it changes nothing."""

import pytest
import torch
from torch import nn

from projects.prune_plugin import UserError, build_pruner
from projects.prune_plugin.calibration import evaluation_mode


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.branch = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))

    def forward(self, x):
        return self.branch(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize('budget', ['flops', 'latency'])
@pytest.mark.parametrize('shape', [(7, 8, 8), (3,), ()])
def test_an_input_shape_that_the_model_does_not_take_is_named(budget, shape):
    model = Images().train()
    before = model.branch[1].running_mean.clone()
    pruner = build_pruner(dict(budget=dict(type=budget), profile=dict(input_shape=shape)))
    with pytest.raises(
        UserError, match=r'profile\.input_shape is \(.* does not run \(\w+Error: '
    ) as e:
        pruner.plan(model)
    assert '\n' not in str(e.value)
    assert model.training and torch.equal(model.branch[1].running_mean, before)


def test_a_fitting_input_shape_leaves_the_model_alone():
    model = Images().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pruner = build_pruner(
        dict(budget=dict(type='flops', ratio=0.01), profile=dict(input_shape=(3, 8, 8)))
    )
    pruner.plan(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with evaluation_mode(model):
        assert model(torch.ones(1, 3, 4, 4)).shape == (1, 2)

"""One batch at a time shows layers what all batches in step show them, bit for bit."""

from functools import partial

import torch
from torch import nn

from projects.prune_plugin.calibration.one_by_one import run_one_by_one
from projects.prune_plugin.calibration.sequential import run_layer_by_layer

STEPS = [('0',), ('2',), ('4',)]


def visits(run, dense: int) -> list:
    """What a walk shows, where each visited layer is changed by what it reads."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    calls = [partial(model, torch.randn(2, 3)) for _ in range(5)]
    seen = []

    def visit(layers, inputs, dense_inputs):
        seen.append([list(inputs), list(dense_inputs)])
        with torch.no_grad():
            model.get_submodule(layers[0]).weight.mul_(sum(x.mean() for x in inputs))
        assert torch.equal(inputs[1:3][0], inputs[1])

    run(model, calls, STEPS, visit, calls[:dense])
    return seen


def test_the_same_inputs_in_both_streams():
    for dense in (0, 2):
        one, all_ = (visits(run, dense) for run in (run_one_by_one, run_layer_by_layer))
        for mine, theirs in zip(one, all_, strict=True):
            for a, b in zip(mine, theirs, strict=True):
                assert len(a) == len(b) and all(map(torch.equal, a, b))
        assert len(one[0][1]) == dense

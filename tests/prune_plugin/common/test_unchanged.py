"""Models are left as they were, whatever a call changes in them."""

from collections import OrderedDict, deque

import pytest
import torch
from torch import nn

from projects.prune_plugin import build_pruner
from projects.prune_plugin.common.unchanged import unchanged


class Remembers(nn.Module):
    """Keeps everything from call to call, in every way."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 8)
        self.register_buffer('mean', torch.zeros(32))
        self.register_buffer('state', None)
        self.position, self.calls, self.log = None, 0, []
        self.seen, self.names, self.queue = {}, {'a'}, deque([1], maxlen=3)
        self.kept = torch.zeros(3)

    def forward(self, x):
        if self.position is None:
            self.position = x.detach()
        hidden = self.up(x).relu()
        self.calls += 1
        self.log.append(hidden)
        self.seen[len(self.seen)] = hidden
        self.names.add(str(self.calls))
        self.queue.append(self.calls)
        self.kept += 1
        self.mean.add_(1)
        self.state = hidden.detach()
        self.later = 1
        return self.down(hidden)


def memory(model: nn.Module) -> dict:
    """All that a model holds besides its weights."""
    own = {k: v for k, v in vars(model).items() if not k.startswith('_') and k != 'training'}
    buffers = {k: v if v is None else v.clone() for k, v in model._buffers.items()}
    kept = own.pop('kept').clone()
    return dict(
        own={k: repr(sorted(v) if isinstance(v, set) else v) for k, v in own.items()}, kept=kept.tolist(),
        buffers={k: repr(v) for k, v in buffers.items()},
    )  # fmt: skip


@pytest.mark.parametrize('calls', [0, 2])
def test_everything_is_put_back(calls):
    model = Remembers()
    for _ in range(calls):
        model(torch.randn(2, 8))
    before, objects = memory(model), (model.log, model.seen, model.names, model.queue, model.kept)
    with unchanged(model):
        model(torch.randn(2, 8))
        model.log = OrderedDict()
    assert memory(model) == before
    now = (model.log, model.seen, model.names, model.queue, model.kept)
    assert all(a is b for a, b in zip(objects, now, strict=True))


@pytest.mark.parametrize('budget', ['params', 'flops'])
@pytest.mark.parametrize('criterion', ['L1', 'Taylor'])
def test_a_plan_leaves_the_model_as_it_was(budget, criterion):
    model, x = Remembers(), torch.randn(2, 8)
    before = memory(model)
    pruner = build_pruner(dict(budget=dict(type=budget, ratio=0.3), criterion=dict(type=criterion)))
    data = [x] if criterion == 'Taylor' else None
    plan = pruner.plan(model, data, loss=lambda m, b: m(b).square().mean(), example_inputs=x)
    assert plan.groups and memory(model) == before

"""Units that an example in evaluation mode would show as free, and that something else reads."""

import copy
import pickle

import pytest
import torch
from torch import nn

from projects.prune_plugin import UserError, build_pruner, slim


class Branches(nn.Module):
    """An MLP whose hidden units are read in another way at times, by what is no layer."""

    def __init__(self, way):
        super().__init__()
        self.up, self.down, self.drop = nn.Linear(32, 64), nn.Linear(64, 8), nn.Dropout(0.5)
        self.register_buffer('prototype', torch.randn(64))
        self.way = way

    def forward(self, x):
        hidden = self.up(x).relu()
        y = self.down(self.drop(hidden))
        if self.training and self.way == 'fails':
            y = y + (hidden * self.prototype).sum(-1, keepdim=True)
        if self.training and self.way == 'differs':
            y = y + hidden.mean(-1, keepdim=True)
        if len(x) > 3 and self.way == 'batch':
            y = y + hidden.flip(-1)[:, :8]
        if self.training and self.way == 'draws':
            y = y + torch.randn_like(hidden).sum(-1, keepdim=True)
        return y


def planned(model, x):
    return build_pruner(dict(budget=dict(type='params', ratio=0.3))).plan(model, example_inputs=x)


@pytest.mark.parametrize(
    ('way', 'why'),
    [
        ('fails', 'in training mode: cut, it fails'),
        ('differs', 'in training mode: cut, it computes something else'),
        ('batch', 'with twice as many samples: cut, it computes something else'),
    ],
)
def test_what_is_read_in_other_ways_is_refused(way, why):
    with pytest.raises(UserError, match=why):
        planned(Branches(way), torch.randn(2, 32))


@pytest.mark.parametrize('way', ['', 'draws'])
def test_dropout_and_noise_are_no_reason(way):
    assert planned(Branches(way), torch.randn(2, 32)).result.achieved >= 0.3


class Attention(nn.Module):
    """Written with another word than ``self``, and with the embedding's width for that of the heads."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(64, 192), nn.Linear(64, 64), 4

    def forward(me, x):  # noqa: N805
        batch, length, width = x.shape
        q, k, v = me.qkv(x).reshape(batch, length, 3, me.heads, 16).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (q @ k.transpose(-1, -2) / 4).softmax(-1) @ v
        return me.proj(torch.reshape(mixed.transpose(1, 2), (batch, length, width)))


def test_methods_written_otherwise_are_adapted_and_pickled():
    torch.manual_seed(0)
    model, x = Attention(), torch.randn(2, 9, 64)
    plan = planned(model, x)
    assert [group.kind for group in plan.groups] == ['attention']
    slimmed = slim(copy.deepcopy(model), plan.state)
    again = pickle.loads(pickle.dumps(slimmed))
    assert torch.equal(again(x), slimmed(x)) and isinstance(again, Attention)
    assert type(again) is type(slimmed) and type(again) is not Attention


@pytest.mark.parametrize(
    'mode', [torch.inference_mode, lambda: torch.autocast('cpu', dtype=torch.bfloat16)]
)
def test_the_mode_of_the_caller_makes_no_difference(mode):
    torch.manual_seed(0)
    model, x = Attention(), torch.randn(2, 9, 64)
    usual = planned(model, x)
    with mode():
        plan = planned(model, x)
    assert plan.digest == usual.digest and plan.refused == usual.refused

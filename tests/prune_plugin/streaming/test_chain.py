"""Which modules are blocks, and why others are none."""

import pytest
import torch
from torch import nn

from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.streaming.block_methods import check_within_blocks
from projects.prune_plugin.streaming.chain import find_chain
from projects.prune_plugin.streaming.stream import capture
from projects.prune_plugin.structure.unit_group import Attr, Cut, UnitGroup


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x, scale=None):
        for expert in self.experts:
            x = x + expert(x)
        return x if scale is None else x * scale


class Chain(nn.Module):
    """Embeds, runs blocks, and reads the last one's output; subclasses do something else between."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(self.embed(x)))

    def body(self, x):
        for block in self.blocks:
            x = block(x, scale=torch.ones(4, device=x.device))
        return x


class Tuples(Chain):
    def body(self, x):
        for block in self.blocks:
            (x, _) = (block(x), None)
        return x


class Between(Chain):
    def body(self, x):
        for block in self.blocks:
            x = block(x) * 2
        return x


class Skip(Chain):
    def body(self, x):
        first = self.blocks[0](x)
        return self.blocks[2](self.blocks[1](first)) + first


class Twice(Chain):
    def body(self, x):
        return super().body(super().body(x))


class Depends(Chain):
    def body(self, x):
        for block in self.blocks:
            x = block(x, scale=x.mean() if block is self.blocks[2] else None)
        return x


def found(kind):
    with torch.device('meta'):
        return find_chain(kind(), (torch.zeros(1, 3),), {})


def test_the_largest_list_that_runs_in_order():
    chain = found(Chain)
    assert chain.blocks == ('blocks.0', 'blocks.1', 'blocks.2')
    assert chain.slot == 0 and not chain.in_tuple
    assert chain.late == {'head.weight', 'head.bias'}
    assert chain.owner('blocks.1.experts.0.weight') == 1 and chain.owner('head.bias') is None
    assert found(Tuples).blocks == chain.blocks


@pytest.mark.parametrize(
    'kind, said',
    [
        (Between, 'used by mul'),
        (Skip, 'used by add'),
        (Twice, 'do not run once each'),
    ],
)
def test_what_is_no_chain(kind, said):
    with pytest.raises(UserError, match=rf'blocks: .*{said}'):
        found(kind)


def test_arguments_that_depend_on_blocks(tmp_path):
    with pytest.raises(UserError, match='used by mean'):
        found(Depends)
    # Where the look at functions misses it, as in a kernel, NaN tells.
    model, chain = Depends(), found(Chain)
    call = lambda: model(torch.ones(1, 3))  # noqa: E731
    with pytest.raises(UserError, match='blocks.2 beside its hidden states depends'):
        capture(model, chain, [call], tmp_path, 'x', 'cpu', True)


def test_a_model_without_a_list():
    with torch.device('meta'), pytest.raises(UserError, match='no torch.nn.ModuleList'):
        find_chain(nn.Linear(3, 4), (torch.zeros(1, 3),), {})


def test_units_are_within_one_block():
    chain = found(Chain)

    def group(*names, attr='blocks.1'):
        cuts = tuple(Cut(f'{name}.weight', 0) for name in names)
        return UnitGroup('units', 'mlp', 4, cuts, attrs=(Attr(attr, 'width'),))

    inside = 'blocks.1.experts.0', 'blocks.1.experts.1'
    check_within_blocks([group(*inside)], chain)
    for wrong in (
        group(*inside, 'blocks.2.experts.0'),
        group(*inside, attr='blocks.0'),
        group('head', attr='head'),
    ):
        with pytest.raises(UserError, match='the units of units have parts outside of one block'):
            check_within_blocks([wrong], chain)

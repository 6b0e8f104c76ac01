"""``round_to`` by kind of unit: what is left, of every allocator, and what is refused."""

import pytest
import torch
from cases import ALLOCATOR_ROWS, BY_NAME

from projects.prune_plugin import StructuredPruner, UserError, slim
from projects.prune_plugin.evaluation.profiling import count_params
from projects.prune_plugin.methods.budgets.layer_shapes import measured_counts
from projects.prune_plugin.methods.rounding import checked_round_to, per_group, round_to_of


def pruner(round_to, allocator=None, ratio: float = 0.3) -> StructuredPruner:
    return StructuredPruner(
        BY_NAME['vit'].units, allocator=allocator or dict(type='Knapsack'), min_keep=1,
        budget=dict(type='params', ratio=ratio), round_to=round_to,
    )  # fmt: skip


def left(plan, kind: str) -> list[int]:
    return [len(plan.state.kept[g.name]) for g in plan.groups if g.kind == kind]


@pytest.mark.parametrize('allocator', ALLOCATOR_ROWS, ids=lambda r: '-'.join(map(str, r.values())))
def test_what_is_left_is_a_multiple_of_the_kind_s_number(allocator):
    dense = BY_NAME['vit'].dense()
    plan = pruner(dict(mlp=32), allocator).plan(dense)
    assert all(n % 32 == 0 and n for n in left(plan, 'mlp'))
    assert sum(left(plan, 'attention')) < 4 * len(left(plan, 'attention'))  # with 32 none could go
    assert count_params(slim(BY_NAME['vit'].dense(), plan.state)) <= 0.7 * count_params(dense)


@pytest.mark.parametrize('allocator', ALLOCATOR_ROWS, ids=lambda r: '-'.join(map(str, r.values())))
@pytest.mark.parametrize('number', [1, 8])
def test_the_same_number_for_all_kinds_is_that_number(allocator, number):
    dense = BY_NAME['vit'].dense()
    for_all = pruner(number, allocator, 0.2).plan(dense)
    by_kind = pruner(dict(attention=number, mlp=number), allocator, 0.2).plan(dense)
    assert for_all.digest == by_kind.digest


def test_other_kinds_have_one():
    group = BY_NAME['vit'].groups()[0]
    assert round_to_of(checked_round_to(dict(mlp=32)), group) == 1 == checked_round_to(None)
    assert measured_counts(group, 5, round_to_of(dict(attention=2), group)).tolist() == [2, 4]
    assert per_group(3, 2) == [3, 3] and per_group(torch.tensor([3, 1]), 2) == [3, 1]


@pytest.mark.parametrize(
    ('round_to', 'said'),
    [
        (dict(mlp=0), r'prune_cfg\.round_to\.mlp is 0; it must be a whole number >= 1'),
        (dict(mlp='8'), r"prune_cfg\.round_to\.mlp is '8'; it must be a whole number"),
        ({}, 'prune_cfg.round_to is an empty dict; name kinds of units'),
        (
            dict(neurons=32),
            r'round_to\.neurons: no units are of this kind; here are attention, mlp',
        ),
    ],
)
def test_what_is_no_such_setting_is_refused(round_to, said):
    dense = BY_NAME['vit'].dense()
    with pytest.raises(UserError, match=said):
        pruner(round_to).plan(dense)

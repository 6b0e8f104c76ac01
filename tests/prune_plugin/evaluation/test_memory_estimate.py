"""What a rank holds in training, against numbers worked out by hand and against FSDP2 itself."""

import pytest
import torch
from torch import nn

from projects.prune_plugin.evaluation.memory_estimate import GIB, memory_table, rank_memory


def small() -> nn.Module:
    """10 x 6 + 10 numbers, and 7 x 10 in half precision that aren't trained."""
    model = nn.Sequential(nn.Linear(6, 10), nn.Linear(10, 7, bias=False))
    model[1].to(torch.bfloat16).requires_grad_(False)
    return model


def test_all_ranks_hold_everything_under_ddp():
    for ranks in (1, 2, 8):
        assert rank_memory(small().parameters(), ranks, False) == dict(
            weights=70 * 4 + 70 * 2, gradients=70 * 4, adamw=2 * 70 * 4, total=4 * 70 * 4 + 140
        )


@pytest.mark.parametrize('ranks, rows, frozen_rows', [(1, 10, 7), (2, 5, 4), (4, 3, 2), (8, 2, 1)])
def test_the_fullest_rank_holds_whole_rows_under_fsdp2(ranks, rows, frozen_rows):
    trained = rows * (6 + 1) * 4
    found = rank_memory(small().parameters(), ranks, True)
    assert found['weights'] == trained + frozen_rows * 10 * 2
    assert found['gradients'] == trained and found['adamw'] == 2 * trained
    assert found['total'] == sum(found[part] for part in ('weights', 'gradients', 'adamw'))


def test_a_large_model_on_the_meta_device():
    with torch.device('meta'):
        models = dict(dense=nn.Linear(2**16, 2**15, bias=False), pruned=nn.Linear(1, 1, bias=False))
    rows = memory_table(models)
    assert [(r['strategy'], r['ranks']) for r in rows[:8]] == [
        (strategy, ranks) for strategy in ('DDP', 'FSDP2') for ranks in (1, 2, 4, 8)
    ]
    # 2^31 numbers of 4 bytes are 8 GiB; with gradients and two moments four times as much.
    assert rows[0]['weights'] == 8 and rows[0]['adamw'] == 16 and rows[0]['total'] == 32
    assert rows[3] == rows[0] | dict(ranks=8) and rows[7]['total'] == 4
    assert all(r['total'] == 16 / GIB for r in rows if r['model'] == 'pruned')


def test_rows_are_divided_as_torch_divides_them():
    for length in (1, 5, 8, 9):
        for ranks in (1, 2, 4, 8):
            weight = torch.empty(length, 3)
            largest = max(len(chunk) for chunk in torch.chunk(weight, ranks))
            assert rank_memory([weight], ranks, True)['weights'] == largest * 3 * 4


def test_units():
    assert GIB == 1024**3

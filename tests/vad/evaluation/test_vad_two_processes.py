"""Two processes with unequal shares give the figures of one."""

import math
import os
import socket

import pytest
import small_tables
import torch
import torch.multiprocessing
import vad_samples
from mmengine.evaluator import Evaluator
from mmengine.registry import METRICS

from projects.prune_plugin.common import distributed
from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.workflows import cli
from projects.vad import evaluation  # noqa: F401  registers the metrics
from projects.vad.evaluation.base import in_order

NAMES = ('VADDetectionMetric', 'VADMapMetric', 'VADMotionMetric', 'VADPlanningMetric')
#: Seven samples: whole scenes to each rank, then what pads the second to the length of the first.
SHARES = [[0, 1, 2, 3, 4], [5, 6, 0, 2, 5]]
SIZE = 7


def one(index: int, stale: bool = False) -> dict:
    """A sample; padding may come with another memory, so with other predictions."""
    noise = 0.9 if stale else 0.1 + 0.02 * index
    made = vad_samples.sample(index, noise=noise, valid=index != 3)
    return dict(made, sample_idx=f'sample-{index}')


def evaluated(indices, folder: str, **kwargs) -> dict[str, float]:
    metrics = [METRICS.build(dict(type=name, **kwargs)) for name in NAMES]
    evaluator = Evaluator(metrics)
    evaluator.dataset_meta = dict(
        vad_samples.META, version=small_tables.VERSION, data_root=f'{folder}/nuscenes'
    )
    for position, index in enumerate(indices):
        evaluator.process([one(index, stale=position > index)])
    return evaluator.evaluate(SIZE)


def on_one_rank(rank: int, port: str, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank), MASTER_PORT=port)
    os.chdir(folder)
    distributed.init('pytorch')
    found = dict(
        gathered=evaluated(SHARES[rank], folder),
        files=evaluated(SHARES[rank], folder, collect_device='cpu'),
        named=evaluated(SHARES[rank], folder, collect_dir=f'{folder}/parts'),
        empty=evaluated(range(SIZE) if rank else [], folder),
    )
    try:
        evaluated([6 + rank], folder)
    except UserError as error:
        found['error'] = str(error)
    torch.save(found, f'{folder}/{rank}.pth')
    cli.shut_down(together=True)


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp('two')
    small_tables.write(folder / 'nuscenes', samples=SIZE)
    return str(folder)


@pytest.fixture(scope='module')
def ranks(folder) -> list[dict]:
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        port = str(found.getsockname()[1])
    torch.multiprocessing.spawn(on_one_rank, (port, folder), nprocs=2)
    return [torch.load(f'{folder}/{rank}.pth', weights_only=True) for rank in range(2)]


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(
        a == b or (math.isnan(a) and math.isnan(b))
        for a, b in ((first[key], second[key]) for key in first)
    )


@pytest.mark.parametrize('how', ['gathered', 'files', 'named', 'empty'])
def test_figures_of_two_are_those_of_one(ranks, folder, how):
    alone = evaluated(range(SIZE), folder)
    assert 0 < alone['pts_bbox_NuScenes/mAP'] < 0.3 and alone['planning/num_valid'] == SIZE - 1
    assert 0 < alone['NuscMap_chamfer/mAP'] < 1 and alone['motion/ADE_car'] > 0
    for rank in ranks:
        assert equal(rank[how], alone)


def test_an_error_of_rank_0_reaches_all(ranks):
    for rank in ranks:
        assert 'sample sample-7 is not in the tables' in rank['error']


def test_each_sample_once_in_order():
    assert in_order([[(3, 'c'), (0, 'padding')], [(0, 'a'), (1, 'b')]]) == ['a', 'b', 'c']
    assert in_order([[('y', 2)], [('x', 1)]]) == [1, 2]
    assert in_order([[], []]) == []


def test_one_process_counts_a_sample_once_too(folder):
    assert equal(evaluated([*range(SIZE), 2, 0], folder), evaluated(range(SIZE), folder))

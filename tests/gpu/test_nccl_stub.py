"""Two ranks whose process group can't send what lies on the CPU, as nccl's can't."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from on_two_ranks import findings
from subjects import subjects

HERE = Path(__file__).resolve().parent
NAMES = ('vit', 'llama', 'vad')


def on_two_ranks(folder: Path, *names: str) -> list[dict]:
    """What each rank found."""
    pytest.importorskip('mmdet3d')
    command = ['-m', 'torch.distributed.run', '--nproc_per_node=2', '--standalone']
    ended = subprocess.run(
        [sys.executable, *command, HERE / 'on_two_ranks.py', folder, *names],
        capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-4000:]
    return [torch.load(folder / f'{rank}.pth', weights_only=True) for rank in range(2)]


@pytest.fixture(scope='module')
def ranks(tmp_path_factory) -> list[dict]:
    """Of all small models."""
    return on_two_ranks(tmp_path_factory.mktemp('ranks'), *NAMES)


def test_the_group_refuses_the_cpu(ranks):
    for rank in ranks:
        assert 'No backend type associated with device type cpu' in rank['refused']
        assert rank['sum'].tolist() == [1.0] * 3


@pytest.mark.parametrize('name', NAMES)
def test_two_ranks_find_what_one_does(ranks, name):
    assert_alike(ranks, name)


@pytest.mark.slow
def test_two_ranks_find_what_one_does_of_vad_nano(tmp_path):
    assert_alike(on_two_ranks(tmp_path, 'vad_nano'), 'vad_nano')


def assert_alike(ranks: list[dict], name: str) -> None:
    """As on a CPU, with all batches."""
    torch.set_num_threads(1)
    alone = findings(subjects()[name](), False)
    first, second = (rank[name] for rank in ranks)
    for job, expected in alone.items():
        assert first[job].keys() == second[job].keys() == expected.keys()
        for key in expected:
            assert torch.equal(first[job][key], second[job][key]), (job, key)
        found, alike = (
            torch.cat([x[key].double().flatten() for key in expected])
            for x in (first[job], expected)
        )
        near = torch.isclose(found, alike, 1e-3, 1e-5 * float(alike.abs().max())).double().mean()
        # VAD looks up the nearest cells: where two are equally near, rounding decides.
        assert near > (0.9 if name.startswith('vad') else 0.99), job

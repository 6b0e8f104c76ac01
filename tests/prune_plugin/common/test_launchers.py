"""What launchers leave in the environment, and the process group that is started from it."""

import os
import socket
from datetime import timedelta

import pytest
import torch
import torch.distributed as torch_dist

from projects.prune_plugin import UserError
from projects.prune_plugin.common import distributed
from projects.prune_plugin.common.launchers import first_of_nodelist, this_rank

MPI = dict(OMPI_COMM_WORLD_RANK='3', OMPI_COMM_WORLD_SIZE='4', OMPI_COMM_WORLD_LOCAL_RANK='1')
SLURM = dict(SLURM_PROCID='5', SLURM_NTASKS='8', SLURM_LOCALID='1', SLURM_NODELIST='gpu[07-10]')
TORCH = dict(RANK='1', WORLD_SIZE='2', LOCAL_RANK='1')


@pytest.fixture(autouse=True)
def environ(monkeypatch):
    """Without what this machine may have set; what is set is taken back."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(('SLURM_', 'OMPI_', 'MASTER_')) or name in TORCH:
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(
    ('launcher', 'variables', 'expected'),
    [
        ('pytorch', TORCH, (1, 2, 1, '127.0.0.1', '29500')),
        ('pytorch', {**TORCH, 'MASTER_ADDR': 'a', 'MASTER_PORT': '7'}, (1, 2, 1, 'a', '7')),
        ('slurm', SLURM, (5, 8, 1, 'gpu07', '29500')),
        ('slurm', {**SLURM, 'SLURM_STEP_NODELIST': 'b1,b2'}, (5, 8, 1, 'b1', '29500')),
        ('slurm', {**SLURM, 'MASTER_ADDR': 'a'}, (5, 8, 1, 'a', '29500')),
        ('mpi', {**MPI, 'OMPI_COMM_WORLD_LOCAL_SIZE': '4'}, (3, 4, 1, '127.0.0.1', '29500')),
        ('mpi', {**MPI, 'OMPI_COMM_WORLD_LOCAL_SIZE': '2', 'MASTER_ADDR': 'a'},
         (3, 4, 1, 'a', '29500')),
    ],
)  # fmt: skip
def test_ranks_are_read(launcher, variables, expected):
    os.environ.update(variables)
    rank = this_rank(launcher)
    assert (rank.rank, rank.world_size, rank.local_rank, rank.address, rank.port) == expected
    rank.export()
    assert {name: os.environ[name] for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')} == {
        'RANK': str(expected[0]), 'WORLD_SIZE': str(expected[1]), 'LOCAL_RANK': str(expected[2]),
    }  # fmt: skip
    assert (os.environ['MASTER_ADDR'], os.environ['MASTER_PORT']) == expected[3:]


@pytest.mark.parametrize(
    ('nodes', 'first'),
    [
        ('node3', 'node3'),
        ('node3,node4', 'node3'),
        ('node[07-09,12],other', 'node07'),
        ('node[3]', 'node3'),
        ('rack[0-1]n[2,4]-ib,x', 'rack0n2-ib'),
    ],
)
def test_the_first_host_of_a_node_list(nodes, first):
    assert first_of_nodelist(nodes) == first


@pytest.mark.parametrize('nodes', ['node[1', 'node]1', 'node[]', 'a,,b', 'a b', 'node[1-]', ','])
def test_what_is_no_node_list_is_refused(nodes):
    os.environ.update({**SLURM, 'SLURM_NODELIST': nodes})
    with pytest.raises(UserError) as error:
        this_rank('slurm')
    assert f'SLURM_NODELIST is {nodes!r}, which is no list of hosts' in str(error.value)


@pytest.mark.parametrize(
    ('launcher', 'variables', 'message'),
    [
        ('mpi', {**MPI, 'OMPI_COMM_WORLD_LOCAL_SIZE': '2'}, 'needs the environment variable MASTER_ADDR'),
        ('pytorch', {**TORCH, 'RANK': 'x'}, "RANK is 'x'; --launcher pytorch needs a whole number"),
        ('pytorch', {**TORCH, 'RANK': '2'}, ' RANK is 2, but WORLD_SIZE is 2; valid are 0 to 1'),
        ('pytorch', {**TORCH, 'LOCAL_RANK': '2'}, 'LOCAL_RANK is 2, but WORLD_SIZE is 2; valid are'),
        ('pytorch', {**TORCH, 'LOCAL_RANK': '-3'}, "'-3'; .* needs a whole number of at least 0"),
        ('pytorch', {**TORCH, 'WORLD_SIZE': '0'}, 'WORLD_SIZE is 0; .* number of processes there'),
        ('pytorch', {**TORCH, 'MASTER_PORT': 'abc'}, "MASTER_PORT is 'abc'; .* from 1 to 65535"),
        ('slurm', {**SLURM, 'MASTER_PORT': '99999'}, "MASTER_PORT is '99999'; it must be a whole"),
        ('pytorch', {}, 'variable RANK; start with "python -m torch.distributed.run '),
        ('slurm', {}, 'variable SLURM_PROCID; start with "srun '),
        ('mpi', {}, 'variable OMPI_COMM_WORLD_RANK; start with "mpirun '),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(launcher, variables, message):
    os.environ.update(variables)
    with pytest.raises(UserError, match=message):
        this_rank(launcher)


# The process group


@pytest.fixture
def started(monkeypatch):
    """What the process group would be started with, on a machine with two GPUs."""
    found = {}

    def init_process_group(backend, **kwargs):
        found.update(backend=backend, **kwargs)

    monkeypatch.setattr(torch_dist, 'init_process_group', init_process_group)
    monkeypatch.setattr(distributed, 'cpu_group', lambda: found.update(side=True))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'set_device', lambda number: found.update(current=number))
    return found


def test_nccl_with_its_device_and_a_long_timeout(started):
    os.environ.update(TORCH)
    distributed.init('pytorch')
    assert started == dict(
        backend='nccl', rank=1, world_size=2, timeout=timedelta(minutes=30), current=1, side=True,
        device_id=torch.device('cuda', 1),
    )  # fmt: skip


def test_the_config_decides(started):
    os.environ.update(TORCH)
    distributed.init('pytorch', dict(backend='gloo', timeout=60, port=1234, group_name='g'))
    assert started['backend'] == 'gloo' and started['group_name'] == 'g'
    assert started['timeout'] == timedelta(seconds=60) and os.environ['MASTER_PORT'] == '1234'


def test_on_cpus_it_is_gloo_whatever_the_config_says(started, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    os.environ.update(TORCH)
    distributed.init('pytorch', dict(backend='nccl'))
    assert started['backend'] == 'gloo' and 'device_id' not in started


def test_mpi_leaves_what_mmengine_reads(started):
    os.environ.update(MPI)
    distributed.init('mpi')
    assert os.environ['LOCAL_RANK'] == '1' and started['current'] == 1


def test_torchrun_has_a_port_of_its_own():
    os.environ.update({**TORCH, 'MASTER_PORT': '7', 'TORCHELASTIC_USE_AGENT_STORE': 'True'})
    assert this_rank('pytorch', 1234).port == '7'


def test_the_group_beside_has_the_same_timeout(started, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(torch_dist, 'init_process_group', lambda *_, **__: None)
    monkeypatch.setattr(distributed, 'cpu_group', lambda: None)
    os.environ.update(TORCH)
    distributed.init('pytorch', dict(timeout=7200))
    assert distributed._timeout == timedelta(hours=2)
    distributed.init('pytorch')
    assert distributed._timeout == distributed.TIMEOUT


def test_slurm_with_one_visible_gpu_per_task(started, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    os.environ.update({**SLURM, 'MASTER_ADDR': 'localhost', 'SLURM_GPUS_PER_TASK': '1'})
    distributed.init('slurm')
    assert started['current'] == 0 and os.environ['LOCAL_RANK'] == '0'


@pytest.mark.parametrize(
    ('variables', 'cfg', 'message'),
    [
        (
            {'LOCAL_RANK': '2', 'WORLD_SIZE': '3'},
            {},
            r'3 processes on this machine .*, but 2 can be used: .*=2\)',
        ),
        (
            {'LOCAL_RANK': '0', 'LOCAL_WORLD_SIZE': '4'},
            {},
            '4 processes on this machine need a GPU each',
        ),
        ({'MASTER_ADDR': 'a..b'}, {}, "MASTER_ADDR names 'a..b' as rank 0's machine, which this"),
        ({'MASTER_ADDR': 'no.invalid'}, {}, "MASTER_ADDR names 'no.invalid' as rank 0's machine"),
    ],
)
def test_bad_input_is_refused(started, variables, cfg, message):
    os.environ.update({**TORCH, **variables})
    with pytest.raises(UserError, match=message):
        distributed.init('pytorch', cfg)
    assert 'backend' not in started


def test_a_node_that_does_not_exist_is_named(started):
    os.environ.update({**SLURM, 'SLURM_NODELIST': 'no.invalid'})
    with pytest.raises(UserError, match=r"SLURM_NODELIST names 'no\.invalid' as rank 0's machine"):
        distributed.init('slurm')
    assert 'backend' not in started


@pytest.mark.parametrize(
    ('launcher', 'variables', 'flag'),
    [('slurm', SLURM, '--ntasks-per-node=1'), ('mpi', MPI, '--npernode 1')],
)
def test_each_launcher_has_its_own_flag(started, monkeypatch, launcher, variables, flag):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    os.environ.update({**variables, 'MASTER_ADDR': 'localhost'})
    with pytest.raises(UserError, match=rf'at most 1 per machine \({flag}\)'):
        distributed.init(launcher)


def test_a_port_in_use_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with socket.create_server(('', 0)) as taken:
        port = taken.getsockname()[1]
        os.environ.update({**TORCH, 'RANK': '0', 'MASTER_PORT': str(port)})
        with pytest.raises(UserError, match=rf'cannot open port {port} \(address already in use\)'):
            distributed.init('pytorch')

"""What all ranks end with is said once; what one alone ends with is said by that one."""

import threading

import pytest
import torch.distributed as torch_dist

from projects.prune_plugin.common import rank_errors
from projects.prune_plugin.common.rank_errors import say

VARIABLES = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK', 'TORCHELASTIC_USE_AGENT_STORE')


@pytest.fixture(autouse=True)
def environ(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ('launcher', 'variables', 'said'),
    [
        ('none', {}, 'error: oh\n'),
        ('none', {'RANK': '1'}, 'error: oh\n'),  # another program's variable
        ('pytorch', {'RANK': '0'}, 'error: oh\n'),
        ('pytorch', {'RANK': '1'}, 'error: rank 1: oh\n'),
        ('pytorch', {'RANK': 'zero'}, 'error: oh\n'),
        ('pytorch', {'RANK': '-1'}, 'error: oh\n'),
        ('slurm', {'SLURM_PROCID': '3', 'RANK': '0'}, 'error: rank 3: oh\n'),
        ('mpi', {}, 'error: oh\n'),
    ],
)
def test_nobody_is_silent_without_knowing_the_others(
    launcher, variables, said, monkeypatch, capsys
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    say('oh', launcher)
    assert capsys.readouterr().err == said


@pytest.mark.parametrize('port', ['abc', '1', None])
def test_nor_where_the_store_cannot_be_reached(port, monkeypatch, capsys):
    monkeypatch.setattr(rank_errors, 'PATIENCE', rank_errors.PATIENCE / 100)
    for name, value in dict(RANK='1', MASTER_ADDR='127.0.0.1', MASTER_PORT=port).items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(
            name, value
        )
    monkeypatch.setenv('TORCHELASTIC_USE_AGENT_STORE', 'True')
    say('oh', 'pytorch')
    assert capsys.readouterr().err == 'error: rank 1: oh\n'


@pytest.fixture
def store(monkeypatch):
    """One that both ranks have, as under torch.distributed.run."""
    server = torch_dist.TCPStore('127.0.0.1', 0, is_master=True)
    monkeypatch.setenv('TORCHELASTIC_USE_AGENT_STORE', 'True')
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.setenv('MASTER_PORT', str(server.port))
    return server


@pytest.mark.parametrize(
    ('second', 'said'),
    [('oh', 'error: oh\n'), ('ah', 'error: oh\nerror: rank 1: ah\n')],
)
def test_the_same_sentence_is_said_once(second, said, store, monkeypatch, capsys):
    for rank, sentence in enumerate(('oh', second)):
        monkeypatch.setenv('RANK', str(rank))
        say(sentence, 'pytorch')
    assert capsys.readouterr().err == said


def test_a_rank_waits_for_the_first_ones_sentence(store, monkeypatch, capsys):
    monkeypatch.setenv('RANK', '1')
    later = threading.Timer(0.2, store.set, (rank_errors.KEY, 'oh'))
    later.start()
    say('oh', 'pytorch')
    later.join()
    assert capsys.readouterr().err == ''


def test_but_not_for_ever(store, monkeypatch, capsys):
    monkeypatch.setattr(rank_errors, 'PATIENCE', rank_errors.PATIENCE / 10)
    monkeypatch.setenv('RANK', '1')
    say('oh', 'pytorch')
    assert capsys.readouterr().err == 'error: rank 1: oh\n'

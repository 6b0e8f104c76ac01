"""Two processes over gloo prune single weights as one process does."""

import os
import socket
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.multiprocessing
from test_sparsify import METHODS, pruned

from projects.prune_plugin import UserError
from projects.prune_plugin.common import distributed
from projects.prune_plugin.methods.pruners.layer_progress import LayerProgress
from projects.prune_plugin.methods.sparsifiers import SparseGPT, Wanda
from projects.prune_plugin.workflows import cli


def not_here(*args):
    """Instead of solving: two machines could find two results, so rank 0 alone does."""
    raise AssertionError('only rank 0 solves')


def on_one_rank(rank: int, port: str, folder: str) -> None:
    """What each process does; it leaves its findings in ``folder``."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank), MASTER_PORT=port)
    distributed.init('pytorch')
    if rank:
        for solver in (SparseGPT, Wanda):
            solver.prune = not_here
    found = []
    for sparsifier in METHODS:
        progress = LayerProgress(Path(folder) / 'progress', sparsifier)
        for _ in range(2):  # the second time from the files
            model, masks = pruned('vit', sparsifier, progress=progress)
            found.append((model.state_dict(), masks))
    try:
        pruned('vit', METHODS[0], batch_size=7)
    except UserError as error:
        found.append(str(error))
    torch.save(found, f'{folder}/{rank}.pth')
    cli.shut_down(together=True)


@contextmanager
def one_thread():
    """As many threads as each process has: rounding depends on them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def test_two_ranks_do_what_one_does(tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    torch.multiprocessing.spawn(on_one_rank, (port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f'{rank}.pth', weights_only=True) for rank in range(2))
    assert first[-1] == second[-1]
    assert 'calibration gives 1 batches for 2 ranks; raise num_samples' in first[-1]
    for number, sparsifier in enumerate(METHODS):
        with one_thread():
            model, masks = pruned('vit', sparsifier)
        for weights, keeps in (*first[2 * number :][:2], *second[2 * number :][:2]):
            assert all(torch.equal(keep, keeps[name]) for name, keep in masks.items())
            for name, tensor in model.state_dict().items():
                assert torch.allclose(weights[name], tensor, rtol=1e-6, atol=1e-7), name
                assert torch.equal(weights[name], first[2 * number][0][name])

"""Starting the process group on GPUs and CPUs, and keeping ranks in agreement."""

import hashlib
import os
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as torch_dist
from mmengine import dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from .errors import UserError
from .glibc_memory import keep_freed_memory

#: Where each launcher leaves (rank, world size, local rank) in the environment.
LAUNCHER_VARIABLES = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}

#: How long a rank waits for another that is there but doesn't come. It must outlast what rank 0
#: does alone (metrics of a whole data set, latency tables). A rank that dies is noticed at once.
TIMEOUT = timedelta(minutes=30)
#: How the backends say that another rank is gone.
LOST_RANK = re.compile(
    r'(?:gloo|NCCL|c10d).*?(closed by peer|reset by peer|Broken pipe|timed out|timeout|remote process)',
    re.IGNORECASE | re.DOTALL,
)


def is_lost_rank(error: BaseException) -> bool:
    """Whether a collective operation failed because another rank is gone or doesn't answer."""
    return dist.get_world_size() > 1 and bool(LOST_RANK.search(str(error)))


def lost_rank_message(error: BaseException) -> str:
    """One sentence for :func:`is_lost_rank`: who noticed, what it saw, and where to look."""
    return (
        f'rank {dist.get_rank()} of {dist.get_world_size()} ends because another rank is gone '
        f'({LOST_RANK.search(str(error))[1]}): it was killed, or ended with an error that its own '
        'output names; a training goes on from its last checkpoint with --resume'
    )


def init(launcher: str) -> None:
    """Start the process group of ``launcher``: nccl where there are GPUs, gloo on CPUs.

    On CPUs the process keeps the memory that tensors free, see :mod:`.memory`.

    MMEngine's own ``init_dist`` asks for a GPU even for gloo, so on CPUs it is done here, before
    the Runner looks.

    Raises:
        UserError: the launcher's environment variables are not there.
    """
    if not torch.cuda.is_available():
        keep_freed_memory()
    if launcher == 'none' or dist.is_distributed():
        return
    variables = LAUNCHER_VARIABLES[launcher]
    missing = [name for name in variables if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher {launcher} needs the environment variable {missing[0]}; start with '
            '"python -m torch.distributed.run --nproc_per_node=N ... --launcher pytorch"'
        )
    if torch.cuda.is_available():
        dist.init_dist(launcher)
        return
    rank, world, local = (os.environ[name] for name in variables)
    os.environ.update(RANK=rank, WORLD_SIZE=world, LOCAL_RANK=local)
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', '29500')
    torch_dist.init_process_group('gloo', rank=int(rank), world_size=int(world), timeout=TIMEOUT)


def sum_over_ranks(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sum each tensor over all ranks, in place; every rank must hold the same names."""
    if dist.get_world_size() > 1:
        for name in sorted(tensors):
            torch_dist.all_reduce(tensors[name])
    return tensors


def from_rank_0(value: Any) -> Any:
    """Rank 0's ``value``, on every rank."""
    if dist.get_world_size() == 1:
        return value
    box = [value]
    torch_dist.broadcast_object_list(box, src=0)
    return box[0]


def from_all_ranks(value: Any) -> list[Any]:
    """Every rank's ``value``, on every rank."""
    values = [value] * dist.get_world_size()
    if len(values) > 1:
        torch_dist.all_gather_object(values, value)
    return values


def on_rank_0(function: Callable[[], Any]) -> Any:
    """Call ``function`` on rank 0 alone; every rank gets its result, or its :class:`UserError`."""
    result, refusal = None, None
    if dist.is_main_process():
        try:
            result = function()
        except UserError as error:
            refusal = error
    result, refusal = from_rank_0((result, refusal))
    if refusal is not None:
        raise refusal
    return result


def assert_ranks_agree(digest: str, what: str) -> None:
    """Raise :class:`RuntimeError` unless all ranks hold the same ``digest``."""
    digests = from_all_ranks(digest)
    if len(set(digests)) > 1:
        raise RuntimeError(f'ranks disagree on {what}: {digests}')


def weights_digest(model: nn.Module) -> str:
    """A hash of every parameter. Buffers are left out: DDP lets ranks have their own statistics.

    Of a parameter that is divided among ranks only name and shape count: no two hold the same part.
    """
    sha = hashlib.sha256()
    for name, tensor in sorted(model.named_parameters()):
        sha.update(f'{name}{tuple(tensor.shape)}'.encode())
        if isinstance(tensor, DTensor):
            continue
        sha.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()

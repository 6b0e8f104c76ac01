"""Process groups on GPUs and CPUs, collectives on Python objects, and checks that ranks agree."""

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

from .errors import UserError, first_line
from .glibc_memory import keep_freed_memory

#: Environment variables in which each launcher passes (rank, world size, local rank).
LAUNCHER_VARIABLES = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}

#: Timeout of collectives on gloo. It must exceed what rank 0 computes alone (metrics of a whole data
#: set, latency tables); a rank that exits is detected at once.
TIMEOUT = timedelta(minutes=30)
#: Messages of the backends when another rank has exited or doesn't respond.
LOST_RANK_PATTERN = re.compile(
    r'(?:gloo|NCCL|c10d).*?(closed by peer|reset by peer|Broken pipe|timed out|timeout|remote process)',
    re.IGNORECASE | re.DOTALL,
)


def is_lost_rank(error: BaseException) -> bool:
    """Whether a collective failed because another rank has exited or doesn't respond."""
    return dist.get_world_size() > 1 and bool(LOST_RANK_PATTERN.search(str(error)))


def lost_rank_message(error: BaseException) -> str:
    """One sentence for an error of :func:`is_lost_rank`: this rank, the backend's reason, what to do."""
    match = LOST_RANK_PATTERN.search(str(error))
    reason = match[1] if match else first_line(error)
    return (
        f'rank {dist.get_rank()} of {dist.get_world_size()} exits because another rank was lost '
        f'({reason}): it was killed, or failed with an error that is in its output; to continue a '
        'training from its last checkpoint, use --resume'
    )


def init(launcher: str) -> None:
    """Start the process group of ``launcher``: nccl where there are GPUs, gloo on CPUs.

    On CPUs freed memory is kept for the next tensor, see :mod:`.glibc_memory`. MMEngine's ``init_dist``
    requires a GPU even for gloo, so on CPUs the group is started here, before the Runner does.

    Args:
        launcher: ``'none'`` (no process group), ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Raises:
        UserError: the launcher's environment variables are not set.
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
    """All-reduce (sum) each tensor in place; every rank must pass the same names."""
    if dist.get_world_size() > 1:
        for name in sorted(tensors):
            torch_dist.all_reduce(tensors[name])
    return tensors


def from_rank_0(value: Any) -> Any:
    """Broadcast rank 0's ``value`` (any picklable object) to every rank."""
    if dist.get_world_size() == 1:
        return value
    values = [value]
    torch_dist.broadcast_object_list(values, src=0)
    return values[0]


def from_all_ranks(value: Any) -> list[Any]:
    """Gather every rank's ``value`` (any picklable object) on every rank, in the order of ranks."""
    values = [value] * dist.get_world_size()
    if len(values) > 1:
        torch_dist.all_gather_object(values, value)
    return values


def on_rank_0(function: Callable[[], Any]) -> Any:
    """Call ``function`` on rank 0 only; every rank returns its result or raises its :class:`UserError`."""
    result, user_error = None, None
    if dist.is_main_process():
        try:
            result = function()
        except UserError as error:
            user_error = error
    result, user_error = from_rank_0((result, user_error))
    if user_error is not None:
        raise user_error
    return result


def assert_ranks_agree(digest: str, what: str) -> None:
    """Raise :class:`RuntimeError` unless all ranks pass the same ``digest`` of ``what``."""
    digests = from_all_ranks(digest)
    if len(set(digests)) > 1:
        raise RuntimeError(f'ranks disagree on {what}: {digests}')


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of the names, shapes and values of all parameters.

    Buffers are excluded, as batch norm statistics may differ between ranks under DDP. Of a sharded
    parameter (DTensor) only name and shape are hashed: each rank holds another shard.
    """
    sha = hashlib.sha256()
    for name, tensor in sorted(model.named_parameters()):
        sha.update(f'{name}{tuple(tensor.shape)}'.encode())
        if isinstance(tensor, DTensor):
            continue
        sha.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()

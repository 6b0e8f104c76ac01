"""Process groups on GPUs and CPUs, collectives on Python objects, and checks that ranks agree."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as torch_dist
from mmengine import dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from .errors import UserError, first_line
from .glibc_memory import keep_freed_memory
from .group_settings import TIMEOUT, GroupSettings
from .launchers import Rank, check_host, this_rank

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


def init(launcher: str, dist_cfg: Any = None) -> None:
    """Start the process group of ``launcher``: nccl where there are GPUs, gloo on CPUs.

    Each process takes the GPU of its number on the machine. On CPUs freed memory is kept for the next
    tensor, see :mod:`.glibc_memory`. MMEngine's ``init_dist`` requires a GPU even for gloo, sets no timeout
    and checks nothing, so the group is started here, before the Runner does.

    Args:
        launcher: ``'none'`` (no process group), ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        dist_cfg: The config's ``env_cfg.dist_cfg``, see :class:`.GroupSettings`; checked in any case.

    Raises:
        UserError: the launcher's environment variables are not set or make no sense, ``dist_cfg`` doesn't,
            rank 0's machine or port can't be used, or this machine has fewer GPUs than processes.
    """
    settings = GroupSettings.read(dist_cfg)
    cuda = torch.cuda.is_available()
    if not cuda:
        keep_freed_memory()
    if launcher == 'none' or dist.is_distributed():
        return
    global _timeout
    _timeout = settings.timeout
    options = settings.options
    rank = this_rank(launcher, settings.port)
    check_host(rank, launcher)
    if cuda:
        rank = replace(rank, local_rank=gpu_of(rank, launcher))  # MMEngine's DDP goes by LOCAL_RANK
        options['device_id'] = torch.device('cuda', rank.local_rank)
        torch.cuda.set_device(rank.local_rank)
    rank.export()
    with port_errors(rank):
        torch_dist.init_process_group(
            settings.backend if cuda else 'gloo',
            rank=rank.rank,
            world_size=rank.world_size,
            **options,
        )
    cpu_group()  # starting it is collective: now, when all ranks are here


@contextmanager
def port_errors(rank: Rank) -> Iterator[None]:
    """Turn PyTorch's error about a port that rank 0 can't open into a :class:`UserError`."""
    try:
        yield
    except torch_dist.DistNetworkError as error:
        if 'failed to listen' not in str(error):
            raise
        reason = re.search(r'message: (.+)', first_line(error))
        raise UserError(
            f'rank 0 cannot open port {rank.port} ({reason[1] if reason else first_line(error)}); set '
            'MASTER_PORT, or --master_port of torch.distributed.run, to a free one'
        ) from error


#: Variables by which Slurm may give each task a GPU of its own, the only one that it sees.
GPU_OF_TASK = ('SLURM_GPUS_PER_TASK', 'SLURM_NTASKS_PER_GPU', 'SLURM_GPU_BIND')
#: Each launcher's flag that takes the number of processes on a machine.
PER_MACHINE = {'pytorch': '--nproc_per_node=', 'slurm': '--ntasks-per-node=', 'mpi': '--npernode '}


def gpu_of(rank: Rank, launcher: str) -> int:
    """The number of the GPU of a process, among those that it can use.

    Slurm may show each task its own GPU alone (``--gpus-per-task=1``): then it is that.

    Raises:
        UserError: there are fewer GPUs than processes on this machine.
    """
    count = torch.cuda.device_count()
    if launcher == 'slurm' and count == 1 and any(os.environ.get(name) for name in GPU_OF_TASK):
        return 0
    # All ranks say so, not the last ones alone.
    needed = max(rank.local_rank + 1, rank.local_size or 0)
    if needed > count:
        raise UserError(
            f'{needed} processes on this machine need a GPU each, but {count} can be used: start at most '
            f'{count} per machine ({PER_MACHINE[launcher]}{count}), or set CUDA_VISIBLE_DEVICES= to run on '
            'CPUs'
        )
    return rank.local_rank


#: The default process group, and the one beside it for the CPU.
_groups: tuple[Any, Any] = (None, None)
#: Timeout of the default group, and of the one beside it.
_timeout = TIMEOUT


def cpu_group() -> Any:
    """The group for tensors on the CPU and for objects; None is the default group.

    nccl knows tensors on GPUs only, and ends a process that waits longer than its timeout. So what rank 0
    does alone is waited for, and what lies on the CPU is sent, on a gloo group beside it. The first call
    after the default group was started is collective.
    """
    global _groups
    default = torch_dist.group.WORLD
    try:
        default._get_backend(torch.device('cpu'))
    except RuntimeError:
        if _groups[0] is not default:
            _groups = default, torch_dist.new_group(backend='gloo', timeout=_timeout)
        return _groups[1]
    return None


def group_of(tensor: Tensor) -> Any:
    """The process group that can send ``tensor``; None is the default group."""
    return cpu_group() if tensor.device.type == 'cpu' else None


def barrier() -> None:
    """Wait until all ranks are here; rank 0 may compute alone for as long as the timeout."""
    if dist.get_world_size() > 1:
        torch_dist.barrier(group=cpu_group())


def sum_over_ranks(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """All-reduce (sum) each tensor in place; every rank must pass the same names."""
    if dist.get_world_size() > 1:
        for name in sorted(tensors):
            torch_dist.all_reduce(tensors[name], group=group_of(tensors[name]))
    return tensors


def tensors_from_rank_0(
    compute: Callable[[], Sequence[Tensor]], like: Sequence[Tensor]
) -> list[Tensor]:
    """Compute tensors on rank 0 only, and send them to every rank.

    GPUs of two kinds, or two versions of a library, round differently; what one rank computes is the same
    on all.

    Args:
        compute: Called on rank 0.
        like: Tensors of the shapes, types and devices of the result.

    Raises:
        UserError: on all ranks, that of ``compute``.
    """
    if dist.get_world_size() == 1:
        return list(compute())
    tensors: list[Tensor] = []

    def compute_alike() -> None:
        for tensor, model in zip(compute(), like, strict=True):
            tensors.append(tensor.to(model).reshape(model.shape))

    on_rank_0(compute_alike)
    if not dist.is_main_process():
        tensors = [torch.empty_like(tensor) for tensor in like]
    tensors = [tensor.contiguous() for tensor in tensors]
    for tensor in tensors:
        # As bytes, since gloo doesn't send all types.
        torch_dist.broadcast(tensor.view(-1).view(torch.uint8), src=0, group=group_of(tensor))
    return tensors


def from_rank_0(value: Any) -> Any:
    """Broadcast rank 0's ``value`` (any picklable object) to every rank."""
    if dist.get_world_size() == 1:
        return value
    values = [value]
    torch_dist.broadcast_object_list(values, src=0, group=cpu_group())
    return values[0]


def from_all_ranks(value: Any) -> list[Any]:
    """Gather every rank's ``value`` (any picklable object) on every rank, in the order of ranks."""
    values = [value] * dist.get_world_size()
    if len(values) > 1:
        torch_dist.all_gather_object(values, value, group=cpu_group())
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
    """SHA-256 of the names, shapes and values of all parameters; on a GPU, of sums of the values' bits.

    Buffers are excluded, as batch norm statistics may differ between ranks under DDP. Of a sharded
    parameter (DTensor) only name and shape are hashed: each rank holds another shard.
    """
    sha = hashlib.sha256()
    on_device = []
    for name, tensor in sorted(model.named_parameters()):
        sha.update(f'{name}{tuple(tensor.shape)}'.encode())
        if isinstance(tensor, DTensor):
            continue
        if tensor.device.type == 'cpu':
            sha.update(tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            on_device.append(bit_sums(tensor.detach()))
    if on_device:  # one copy for all
        sha.update(torch.stack(on_device).cpu().numpy().tobytes())
    return sha.hexdigest()


#: Elements that :func:`bit_sums` takes at once: four times this many bytes of int64, twice.
PIECE = 1 << 24


def bit_sums(tensor: Tensor) -> Tensor:
    """The sum of all elements' bits as whole numbers, and their sum weighted by position; int64 (2,)."""
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = tensor.reshape(-1).view(integers[tensor.element_size()])
    total = torch.zeros(2, dtype=torch.int64, device=tensor.device)
    for start in range(0, len(bits), PIECE):
        piece = bits[start : start + PIECE].long()
        place = torch.arange(start, start + len(piece), device=tensor.device)
        total += torch.stack([piece.sum(), (piece * (place * 2 + 1)).sum()])
    return total

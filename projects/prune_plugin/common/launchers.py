"""What launchers leave in the environment: which process this is, and where the others are."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import UserError

#: Environment variables in which each launcher passes (rank, world size, local rank).
LAUNCHER_VARIABLES = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}
PORT = '29500'
#: Variables with the number of processes on this machine.
LOCAL_SIZE = {'pytorch': 'LOCAL_WORLD_SIZE', 'mpi': 'OMPI_COMM_WORLD_LOCAL_SIZE'}


@dataclass(frozen=True)
class Rank:
    """One process of several.

    Attributes:
        rank: Its number.
        world_size: How many there are.
        local_rank: Its number on this machine.
        address: Host name or address of rank 0's machine.
        port: Port of rank 0.
        local_size: How many there are on this machine; None: unknown.
    """

    rank: int
    world_size: int
    local_rank: int
    address: str
    port: str
    local_size: int | None = None

    def export(self) -> None:
        """Set the environment variables that PyTorch reads."""
        os.environ.update(
            RANK=str(self.rank),
            WORLD_SIZE=str(self.world_size),
            LOCAL_RANK=str(self.local_rank),
            MASTER_ADDR=self.address,
            MASTER_PORT=self.port,
        )


def this_rank(launcher: str, port: int | None = None) -> Rank:
    """Read the environment of ``launcher``.

    Args:
        launcher: ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        port: Port of rank 0; None: that of the environment, else 29500. ``torch.distributed.run`` has a
            port of its own.

    Raises:
        UserError: a variable is missing or no number, a rank is out of range, or there are several
            machines and none is known to be the first.
    """
    variables = LAUNCHER_VARIABLES[launcher]
    missing = [name for name in variables if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher {launcher} needs the environment variable {missing[0]}; start with '
            '"python -m torch.distributed.run --nproc_per_node=N ... --launcher pytorch"'
        )
    values = []
    for name in variables:
        if not os.environ[name].isdecimal():
            raise UserError(
                f'the environment variable {name} is {os.environ[name]!r}; --launcher {launcher} needs '
                'a whole number there'
            )
        values.append(int(os.environ[name]))
    rank, world_size, local_rank = values
    if rank >= world_size:
        raise UserError(
            f'the environment variable {variables[0]} is {rank}, but {variables[1]} is {world_size}; '
            f'valid are 0 to {world_size - 1}'
        )
    address = os.environ.get('MASTER_ADDR') or first_host(launcher, os.environ)
    if os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == 'True':
        port = None  # torch.distributed.run has opened its own
    given = str(port) if port is not None else os.environ.get('MASTER_PORT') or PORT
    size = os.environ.get(LOCAL_SIZE.get(launcher, ''), '')
    local_size = int(size) if size.isdecimal() else None
    return Rank(rank, world_size, local_rank, address, given, local_size)


def first_host(launcher: str, environ: Mapping[str, str]) -> str:
    """Name of rank 0's machine, without ``MASTER_ADDR``.

    Raises:
        UserError: mpi started processes on several machines, which doesn't tell the first one's name.
    """
    if launcher == 'slurm' and (
        nodes := environ.get('SLURM_STEP_NODELIST') or environ.get('SLURM_NODELIST')
    ):
        return first_of_nodelist(nodes)
    if launcher == 'mpi':
        local = environ.get('OMPI_COMM_WORLD_LOCAL_SIZE')
        if local is not None and local != environ['OMPI_COMM_WORLD_SIZE']:
            raise UserError(
                '--launcher mpi on several machines needs the environment variable MASTER_ADDR, the '
                'address of rank 0\'s machine; start with "mpirun -x MASTER_ADDR=... ..."'
            )
    return '127.0.0.1'


def first_of_nodelist(nodes: str) -> str:
    """The first host of a Slurm node list: ``node[07-09,12],other`` gives ``node07``."""
    first = re.match(r'(?:[^,\[]|\[[^\]]*\])+', nodes)
    return re.sub(r'\[(\w+)[^\]]*\]', r'\1', first[0] if first else nodes)

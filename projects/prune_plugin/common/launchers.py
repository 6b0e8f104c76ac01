"""What launchers leave in the environment: which process this is, and where the others are."""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import UserError

#: Environment variables in which each launcher passes (rank, world size, local rank).
LAUNCHER_VARIABLES = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}
#: How each launcher starts several processes.
STARTED_BY = {
    'pytorch': 'python -m torch.distributed.run --nproc_per_node=N ... --launcher pytorch',
    'slurm': 'srun --ntasks=N python ... --launcher slurm',
    'mpi': 'mpirun -np N python ... --launcher mpi',
}
PORT = '29500'
LAST_PORT = 65535
#: Variables with the number of processes on this machine.
LOCAL_SIZE = {'pytorch': 'LOCAL_WORLD_SIZE', 'mpi': 'OMPI_COMM_WORLD_LOCAL_SIZE'}
#: Variables with Slurm's list of hosts: those of the step, of the job.
NODE_LISTS = ('SLURM_STEP_NODELIST', 'SLURM_NODELIST')
#: A name in it, which may stand for several hosts: ``node[07-09,12]``.
HOSTS = r'(?:[^,\[\]\s]|\[\w+(?:[-,]\w+)*\])+'


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
        UserError: a variable is missing, is no number or makes no sense, or there are several machines
            and none is known to be the first.
    """
    variables = LAUNCHER_VARIABLES[launcher]
    missing = [name for name in variables if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher {launcher} needs the environment variable {missing[0]}; start with '
            f'"{STARTED_BY[launcher]}"'
        )
    rank, world_size, local_rank = (whole_number(name, launcher) for name in variables)
    if world_size == 0:
        raise UserError(
            f'the environment variable {variables[1]} is 0; --launcher {launcher} needs the number of '
            'processes there, at least 1'
        )
    for name, number in ((variables[0], rank), (variables[2], local_rank)):
        if number >= world_size:
            raise UserError(
                f'the environment variable {name} is {number}, but {variables[1]} is {world_size}; '
                f'valid are 0 to {world_size - 1}'
            )
    address = os.environ.get('MASTER_ADDR') or first_host(launcher, os.environ)
    if os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == 'True':
        port = None  # torch.distributed.run has opened its own
    given = str(port) if port is not None else port_of_environment()
    size = os.environ.get(LOCAL_SIZE.get(launcher, ''), '')
    local_size = int(size) if size.isdecimal() else None
    return Rank(rank, world_size, local_rank, address, given, local_size)


def whole_number(name: str, launcher: str) -> int:
    """The value of an environment variable, a whole number of at least 0; :class:`UserError` if not."""
    text = os.environ[name]
    if not text.isdecimal():
        raise UserError(
            f'the environment variable {name} is {text!r}; --launcher {launcher} needs a whole number '
            'of at least 0 there'
        )
    return int(text)


def port_of_environment() -> str:
    """``MASTER_PORT``, else 29500; :class:`UserError` if it's none."""
    port = os.environ.get('MASTER_PORT') or PORT
    if not port.isdecimal() or not 1 <= int(port) <= LAST_PORT:
        raise UserError(
            f'the environment variable MASTER_PORT is {port!r}; it must be a whole number from 1 to '
            f'{LAST_PORT}'
        )
    return port


def check_host(rank: Rank, launcher: str) -> None:
    """Look up rank 0's machine: who waits for one that doesn't exist waits until the timeout.

    Raises:
        UserError: its name is unknown.
    """
    try:
        socket.getaddrinfo(rank.address, int(rank.port))
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host looks like that
        source = 'MASTER_ADDR'
        if not os.environ.get(source) and launcher == 'slurm':
            source = node_list(os.environ)[0]
        raise UserError(
            f"{source} names {rank.address!r} as rank 0's machine, which this machine cannot find "
            f'({getattr(error, "strerror", None) or "not the name of a host"}); set MASTER_ADDR to its '
            'name or address'
        ) from error


def first_host(launcher: str, environ: Mapping[str, str]) -> str:
    """Name of rank 0's machine, without ``MASTER_ADDR``.

    Raises:
        UserError: Slurm's node list is none; or mpi started processes on several machines, which doesn't
            tell the first one's name.
    """
    if launcher == 'slurm':
        name, nodes = node_list(environ)
        if nodes:
            return first_of_nodelist(nodes, name)
    if launcher == 'mpi':
        local = environ.get('OMPI_COMM_WORLD_LOCAL_SIZE')
        if local is not None and local != environ['OMPI_COMM_WORLD_SIZE']:
            raise UserError(
                '--launcher mpi on several machines needs the environment variable MASTER_ADDR, the '
                'address of rank 0\'s machine; start with "mpirun -x MASTER_ADDR=... ..."'
            )
    return '127.0.0.1'


def node_list(environ: Mapping[str, str]) -> tuple[str, str]:
    """The variable with Slurm's list of hosts, and the list; empty without one."""
    name = next((n for n in NODE_LISTS if environ.get(n)), NODE_LISTS[-1])
    return name, environ.get(name, '')


def first_of_nodelist(nodes: str, name: str = NODE_LISTS[-1]) -> str:
    """The first host of a Slurm node list: ``node[07-09,12],other`` gives ``node07``.

    Args:
        nodes: The list.
        name: The variable that holds it.

    Raises:
        UserError: it's no such list.
    """
    if not re.fullmatch(rf'{HOSTS}(,{HOSTS})*', nodes):
        raise UserError(
            f'the environment variable {name} is {nodes!r}, which is no list of hosts such as '
            "'node[07-09,12],other'; set MASTER_ADDR to the name of rank 0's machine"
        )
    first = re.match(HOSTS, nodes)
    return re.sub(r'\[(\w+)[^\]]*\]', r'\1', first[0] if first else nodes)

"""Which rank says what, when processes end with an error."""

import os
import sys
from datetime import timedelta

import torch.distributed as torch_dist

from .launchers import LAUNCHER_VARIABLES

#: Where rank 0 leaves its sentence for the others, and how long they wait for it.
KEY = 'prune_plugin/error'
PATIENCE = timedelta(seconds=2)


def say(sentence: str, launcher: str) -> None:
    """Print ``error: ...``; other ranks than the first say which they are, unless rank 0 says the same.

    Args:
        sentence: What went wrong.
        launcher: As on the command line; without one a process speaks for itself.
    """
    rank = number_of_rank(launcher)
    store = None if rank is None else common_store()
    if rank and store and is_said_by_rank_0(sentence, store):
        return
    print(f'error: rank {rank}: {sentence}' if rank else f'error: {sentence}', file=sys.stderr)
    if rank == 0 and store:
        store.set(KEY, sentence)


def number_of_rank(launcher: str) -> int | None:
    """This process's number, also before there is a process group; None if there is no telling."""
    if torch_dist.is_initialized():
        return torch_dist.get_rank()
    if launcher not in LAUNCHER_VARIABLES:
        return None
    text = os.environ.get(LAUNCHER_VARIABLES[launcher][0], '')
    return int(text) if text.isdecimal() else None


def is_said_by_rank_0(sentence: str, store: torch_dist.Store) -> bool:
    """Whether rank 0 ends with the same sentence."""
    try:
        store.wait([KEY], PATIENCE)
        return store.get(KEY).decode() == sentence
    except RuntimeError:  # rank 0 has nothing to say, or is gone with the store
        return False


def common_store() -> torch_dist.Store | None:
    """What all ranks can read and write: the group's, or before it starts that of the launcher."""
    if torch_dist.is_initialized():
        return torch_dist.distributed_c10d._get_default_store()
    if os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True':
        return None
    try:
        address, port = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
        return torch_dist.TCPStore(address, port, is_master=False, timeout=PATIENCE)
    except (KeyError, ValueError, RuntimeError):  # what stands there may be what the error is about
        return None

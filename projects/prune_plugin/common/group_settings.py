"""``env_cfg.dist_cfg`` of a config: how the process group is started."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as torch_dist

from .errors import UserError
from .launchers import LAST_PORT
from .validation import at_least, check_number, one_of

KEY = 'env_cfg.dist_cfg'
KEYS = ('backend', 'group_name', 'init_backend', 'init_method', 'port', 'timeout')
#: Timeout of collectives. It must exceed what rank 0 computes alone (metrics of a whole data set, latency
#: tables); a rank that exits is detected at once.
TIMEOUT = timedelta(minutes=30)
#: Names in PyTorch's list that connect nothing.
NO_BACKENDS = ('undefined', 'fake')


@dataclass(frozen=True)
class GroupSettings:
    """How the process group is started.

    Attributes:
        backend: On GPUs; on CPUs it is gloo.
        timeout: Of collectives.
        port: Of rank 0; None: the environment's, else 29500.
        group_name: PyTorch's name of the group.
        init_method: Where ranks meet, as PyTorch has it (``env://``); empty: PyTorch's default.
    """

    backend: str = 'nccl'
    timeout: timedelta = TIMEOUT
    port: int | None = None
    group_name: str = ''
    init_method: str = ''

    @classmethod
    def read(cls, dist_cfg: Any) -> 'GroupSettings':
        """Check ``dist_cfg``, what isn't used this time too.

        Raises:
            UserError: a key is unknown, or a value makes no sense.
        """
        if dist_cfg is None:
            return cls()
        given = mapping(KEY, dist_cfg)
        for key in given:
            if key not in KEYS:
                raise UserError(f'{key} is not a key of {KEY}; valid are {", ".join(KEYS)}')
        one_of(f'{KEY}.init_backend', given.pop('init_backend', 'torch'), ['torch'])
        given = {key: value for key, value in given.items() if value is not None}
        if 'backend' in given:
            check_backend(f'{KEY}.backend', given['backend'])
        if 'port' in given:
            at_least(f'{KEY}.port', given['port'], 1, LAST_PORT)
        if 'timeout' in given:
            check_number(f'{KEY}.timeout', given['timeout'], 0, timedelta.max.total_seconds())
            given['timeout'] = timedelta(seconds=given['timeout'])
        for name in ('group_name', 'init_method'):
            if not isinstance(given.get(name, ''), str):
                raise UserError(f'{KEY}.{name} is {given[name]!r}; it must be a text')
        return cls(**given)

    @property
    def options(self) -> dict[str, Any]:
        """What ``torch.distributed.init_process_group`` is told of it, beside the backend."""
        named = dict(group_name=self.group_name, init_method=self.init_method)
        return dict(timeout=self.timeout, **{key: value for key, value in named.items() if value})


def dist_cfg_of(cfg: Mapping[str, Any]) -> Any:
    """``env_cfg.dist_cfg`` of a config, as it stands there; None without one.

    Raises:
        UserError: ``env_cfg`` is no dict.
    """
    env_cfg = cfg.get('env_cfg')
    return None if env_cfg is None else mapping('env_cfg', env_cfg).get('dist_cfg')


def mapping(key: str, value: Any) -> dict[str, Any]:
    """A copy of a dict; :class:`UserError` if it's none."""
    if not isinstance(value, Mapping):
        raise UserError(f'{key} is {value!r}; it must be a dict')
    return dict(value)


def check_backend(key: str, value: Any) -> None:
    """Raise :class:`UserError` unless PyTorch knows the backend: ``nccl``, or ``cpu:gloo,cuda:nccl``."""
    known = [name for name in torch_dist.Backend.backend_list if name not in NO_BACKENDS]
    name = f'({"|".join(map(re.escape, known))})'
    either = rf'{name}|(cpu|cuda):{name}(,(cpu|cuda):{name})*'
    if not isinstance(value, str) or not re.fullmatch(either, value, re.IGNORECASE):
        raise UserError(
            f"{key} is {value!r}; valid are {', '.join(known)}, or 'cpu:gloo,cuda:nccl'"
        )

"""``prune_cfg.execution``: whether the model is held as a whole, or read block by block."""

import re
from dataclasses import dataclass
from typing import Any

from ...common.errors import UserError
from ...common.validation import is_number, one_of

UNITS = {'B': 1, 'KB': 10**3, 'MB': 10**6, 'GB': 10**9, 'TB': 10**12}
SIZE = re.compile(r'\s*(\d+(?:\.\d+)?)\s*([KMGT]?B)\s*', re.IGNORECASE)


@dataclass
class ExecutionSettings:
    """Whether the model is held as a whole, or read block by block.

    Attributes:
        mode: ``'memory'``: the model is held as a whole. ``'streamed'``: its blocks are read from
            safetensors files, pruned and written one after the other.
        offload: Streamed, where the hidden states of the batches wait between two blocks: ``'cpu'``: in
            memory, and all batches pass a block in step; ``'disk'``: in files, and one batch at a time
            runs, again for each layer.
        max_memory: Streamed, most memory that the run may need by its own estimate, such as ``'12GB'``;
            more is refused before the first read. None: no limit.
        max_shard_size: Streamed, largest file to write, such as ``'5GB'``.

    Raises:
        UserError: a value isn't valid.
    """

    mode: str = 'memory'
    offload: str = 'cpu'
    max_memory: str | float | None = None
    max_shard_size: str | float = '5GB'

    def __post_init__(self):
        one_of('mode', self.mode, ['memory', 'streamed'])
        one_of('offload', self.offload, ['cpu', 'disk'])
        self.most_memory = None
        if self.max_memory is not None:
            self.most_memory = bytes_of('max_memory', self.max_memory)
        self.shard_size = bytes_of('max_shard_size', self.max_shard_size)

    @property
    def streamed(self) -> bool:
        """Whether blocks are read one after the other."""
        return self.mode == 'streamed'


def check_in_memory(settings: ExecutionSettings, what: str) -> None:
    """Raise :class:`UserError` where ``what`` needs the whole model, but it is to be streamed."""
    if settings.streamed:
        raise UserError(
            f"prune_cfg.execution.mode is 'streamed', which goes with tools/analysis_struct.py CONFIG "
            f'--output-dir D; {what} needs the whole model: take mode="memory"'
        )


def bytes_of(key: str, value: Any) -> int:
    """A size in bytes: ``'12GB'``, in powers of 1000, or a number of GB.

    Raises:
        UserError: it is none, or not positive.
    """
    found = SIZE.fullmatch(value) if isinstance(value, str) else None
    if found:
        size = float(found[1]) * UNITS[found[2].upper()]
    else:
        size = value * UNITS['GB'] if is_number(value) else 0
    if size < 1:
        raise UserError(f"{key} is {value!r}; it must be a size such as '12GB', or a number of GB")
    return int(size)

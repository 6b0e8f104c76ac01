"""Hidden states of many windows between two blocks: in a file, and as asked in memory too."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.shards.reading import read_fully

#: Offset in the file, shape and type.
Entry = tuple[int, tuple[int, ...], torch.dtype]


class HiddenStates:
    """Tensors that are appended one by one and read in any order.

    The file is what a killed run goes on from, so it is written in any case.

    Args:
        path: The file; it is made anew.
        in_memory: Whether tensors also stay in memory until they are forgotten.
        index: Of an existing file, from :attr:`index`; nothing is appended to it.
    """

    def __init__(self, path: Path, in_memory: bool, index: list[Entry] | None = None):
        self.path, self.in_memory = path, in_memory
        self.index: list[Entry] = list(index or ())
        self.kept: dict[int, Tensor] = {}
        self.size = sum(length(entry) for entry in self.index)
        if index is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b'')

    def __len__(self) -> int:
        return len(self.index)

    def append(self, tensor: Tensor) -> None:
        """Add a tensor.

        Raises:
            OSError: the disk is full; with the file as its ``filename``.
        """
        tensor = tensor.detach().cpu().contiguous()
        entry = self.size, tuple(tensor.shape), tensor.dtype
        try:
            with open(self.path, 'ab') as file:
                file.write(memoryview(tensor.flatten().view(torch.uint8).numpy()))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        if self.in_memory:
            self.kept[len(self.index)] = tensor.clone() if tensor._is_view() else tensor
        self.index.append(entry)
        self.size += length(entry)

    def __getitem__(self, number: int) -> Tensor:
        if number in self.kept:
            return self.kept[number]
        start, shape, dtype = self.index[number]
        tensor = torch.empty(shape, dtype=dtype)
        with open(self.path, 'rb', buffering=0) as file:
            file.seek(start)
            read_fully(file.fileno(), memoryview(tensor.flatten().view(torch.uint8).numpy()))
        return tensor

    def forget(self, number: int) -> None:
        """Free a tensor's memory; the file keeps it."""
        self.kept.pop(number, None)

    def sync(self) -> None:
        """Return when all is on the disk."""
        with open(self.path, 'rb') as file:
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Free memory and disk."""
        self.kept.clear()
        self.path.unlink(missing_ok=True)

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` needs beside the file, as plain data."""
        shapes = [
            [list(shape), str(dtype).removeprefix('torch.')] for _, shape, dtype in self.index
        ]
        return {'file': self.path.name, 'tensors': shapes}

    @classmethod
    def from_dict(cls, data: dict[str, Any], folder: Path, in_memory: bool) -> 'HiddenStates':
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: the file isn't as long as it was.
        """
        index: list[Entry] = []
        start = 0
        for shape, dtype in data['tensors']:
            index.append((start, tuple(shape), getattr(torch, dtype)))
            start += length(index[-1])
        path = folder / Path(data['file']).name
        if not path.is_file() or path.stat().st_size != start:
            raise ValueError(f'{path} is missing or has changed')
        return cls(path, in_memory, index)


def length(entry: Entry) -> int:
    """Bytes of a tensor."""
    _, shape, dtype = entry
    return torch.Size(shape).numel() * dtype.itemsize

"""Reading single tensors from a folder of safetensors files."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...common.errors import UserError
from .header import Place, read_header

INDEX = 'model.safetensors.index.json'
SINGLE = 'model.safetensors'


class ShardedWeights(Mapping[str, Place]):
    """The tensors of a folder's safetensors files, each read when it is asked for.

    Files are read, not mapped: what isn't asked for takes neither memory nor address space, and a file
    that is cut short gives an error instead of a fault.

    Args:
        folder: Holds ``model.safetensors``, or shards and ``model.safetensors.index.json``.

    Attributes:
        bytes_read: How much was read so far.

    Raises:
        UserError: there are no such files, they are damaged, or the index names what isn't there.

    Source: the format, https://github.com/huggingface/safetensors.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.bytes_read = 0
        self.places: dict[str, Place] = {}
        for path, names in shards_of(self.folder).items():
            found = read_header(path)
            for name in names or found:
                if name not in found:
                    raise UserError(f'{path} lacks {name}, which {INDEX} says it has')
                self.places[name] = found[name]

    def __getitem__(self, name: str) -> Place:
        return self.places[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def read(self, name: str) -> Tensor:
        """A tensor, in memory of its own.

        Raises:
            UserError: the file has become shorter, or can't be read.
        """
        place = self.places[name]
        tensor = torch.empty(place.shape, dtype=place.dtype)
        if not place.size:
            return tensor
        try:
            with open(place.path, 'rb', buffering=0) as file:
                file.seek(place.start)
                read_fully(file.fileno(), memoryview(tensor.flatten().view(torch.uint8).numpy()))
        except (OSError, EOFError) as error:
            said = getattr(error, 'strerror', None) or error
            raise UserError(f'{place.path} cannot be read ({said})') from error
        self.bytes_read += place.size
        return tensor

    def prefetch(self, names: Iterable[str]) -> None:
        """Have the system read tensors into its cache while something else is computed."""
        if not hasattr(os, 'posix_fadvise'):
            return
        by_file: dict[Path, list[Place]] = {}
        for name in names:
            by_file.setdefault(self.places[name].path, []).append(self.places[name])
        for path, places in by_file.items():
            with open(path, 'rb') as file:
                for place in places:
                    os.posix_fadvise(file.fileno(), place.start, place.size, os.POSIX_FADV_WILLNEED)

    def stamp(self) -> list[list]:
        """What identifies the files: name, size and time of each."""
        files = sorted({place.path for place in self.places.values()})
        return [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]


def read_fully(handle: int, buffer: memoryview) -> None:
    """Fill a buffer from a file; ``EOFError`` where the file ends before."""
    done = 0
    while done < len(buffer):
        count = os.readv(handle, [buffer[done:]])
        if not count:
            raise EOFError('it ends before the tensor does')
        done += count


def shards_of(folder: Path) -> dict[Path, list[str]]:
    """The files of a folder, each with the names that the index has for it; none without an index."""
    index = folder / INDEX
    if not index.is_file():
        if not (folder / SINGLE).is_file():
            raise UserError(f'{folder} has neither {SINGLE} nor {INDEX}')
        return {folder / SINGLE: []}
    try:
        names = json.loads(index.read_text(encoding='utf-8'))['weight_map']
        files = {name: Path(file) for name, file in names.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f'{index} cannot be read as an index of shards: {error}') from error
    shards: dict[Path, list[str]] = {}
    for name, file in files.items():
        if file.name != str(file):
            raise UserError(f'{index} names {str(file)!r}, which is no file of its folder')
        shards.setdefault(folder / file, []).append(name)
    return shards


def total_bytes(places: Iterable[Place]) -> int:
    """Bytes of some tensors as they lie in their files."""
    return sum(math.prod(p.shape) * p.dtype.itemsize for p in places)

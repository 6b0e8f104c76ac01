"""Writing safetensors files tensor by tensor, in any order, in as many sittings as it takes."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...common.fileio import atomic_write
from .header import Place, header_bytes, read_header
from .reading import INDEX, SINGLE

#: Type and shape of a tensor.
Kind = tuple[torch.dtype, tuple[int, ...]]


def plan_shards(tensors: Mapping[str, Kind], most: int) -> dict[str, dict[str, Kind]]:
    """Which tensors go into which file, in their order.

    Args:
        tensors: All tensors, by name.
        most: Most bytes of data in a file; a larger tensor has one of its own.

    Returns:
        By file name, as Hugging Face has them: ``model.safetensors``, or
        ``model-00001-of-00003.safetensors`` and so on.
    """
    shards: list[dict[str, Kind]] = [{}]
    size = 0
    for name, kind in tensors.items():
        more = header_bytes({name: kind})[1]
        if shards[-1] and size + more > most:
            shards.append({})
            size = 0
        shards[-1][name] = kind
        size += more
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    return {f'model-{i:05d}-of-{len(shards):05d}.safetensors': s for i, s in enumerate(shards, 1)}


class ShardWriter:
    """Files whose tensors are written one by one, each at its place.

    All files are made at once, with the space that they will take: a disk that is too small says so
    before any work. Files of an interrupted run that were made for the same tensors are gone on with.

    Args:
        folder: An existing folder.
        shards: From :func:`plan_shards`.

    Attributes:
        bytes_written: How much was written so far.

    Raises:
        OSError: the disk is full, or can't be written; with the file as its ``filename``.
    """

    def __init__(self, folder: Path, shards: Mapping[str, Mapping[str, Kind]]):
        self.folder, self.bytes_written = folder, 0
        self.places: dict[str, Place] = {}
        self.touched: set[Path] = set()
        for name, tensors in shards.items():
            reserve(folder / name, *header_bytes(tensors))
            self.places |= read_header(folder / name)
        if len(shards) > 1:
            total = sum(place.size for place in self.places.values())
            weight_map = {tensor: name for name, tensors in shards.items() for tensor in tensors}
            index = {'metadata': {'total_size': total}, 'weight_map': weight_map}
            with atomic_write(folder / INDEX) as file:
                file.write(json.dumps(index, indent=2) + '\n')

    def write(self, name: str, tensor: Tensor) -> None:
        """Write a tensor of the type and shape that its place is for.

        Raises:
            OSError: as for the class.
            ValueError: another type or shape.
        """
        place = self.places[name]
        if (tensor.dtype, tuple(tensor.shape)) != (place.dtype, place.shape):
            raise ValueError(
                f'{name}: {tensor.dtype} {tuple(tensor.shape)} is not what {place} is for'
            )
        if not place.size:
            return
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        write_at(place.path, memoryview(data), place.start)
        self.bytes_written += place.size
        self.touched.add(place.path)

    def sync(self) -> None:
        """Return when all that was written is on the disk."""
        for path in self.touched:
            with open(path, 'rb') as file:
                os.fsync(file.fileno())
        self.touched.clear()


def reserve(path: Path, head: bytes, size: int) -> None:
    """Make a file with this head and room for ``size`` bytes; one with the same head stays as it is."""
    if path.is_file() and path.stat().st_size == len(head) + size:
        with open(path, 'rb') as file:
            if file.read(len(head)) == head:
                return
    try:
        with open(path, 'wb') as file:
            file.write(head)
            file.flush()
            if size:
                os.posix_fallocate(file.fileno(), len(head), size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    path.chmod(0o644)


def write_at(path: Path, data: memoryview, start: int) -> None:
    """Write bytes at a place of an existing file."""
    handle = os.open(path, os.O_WRONLY)
    try:
        done = 0
        while done < len(data):
            done += os.pwrite(handle, data[done:], start + done)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(handle)

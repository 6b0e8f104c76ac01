"""The head of a safetensors file: which tensors it holds, of what type and shape, and where."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...common.errors import UserError

#: Types by the names that the format has for them.
DTYPES = {
    'F64': torch.float64, 'F32': torch.float32, 'F16': torch.float16, 'BF16': torch.bfloat16,
    'I64': torch.int64, 'I32': torch.int32, 'I16': torch.int16, 'I8': torch.int8,
    'U8': torch.uint8, 'BOOL': torch.bool, 'F8_E4M3': torch.float8_e4m3fn, 'F8_E5M2': torch.float8_e5m2,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
#: Longest head that is read, in bytes; the format's own limit.
LONGEST = 100_000_000
#: What tensors begin at a multiple of.
ALIGNMENT = 8


@dataclass(frozen=True)
class Place:
    """A tensor in a file.

    Attributes:
        path: The file.
        dtype: The tensor's type.
        shape: Its shape.
        start: Byte in the file at which it begins.
    """

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(path: Path) -> dict[str, Place]:
    """The tensors of a file, by name.

    Raises:
        UserError: it can't be read, is no safetensors file, or claims more than it holds.
    """
    try:
        size = os.path.getsize(path)
        with open(path, 'rb') as file:
            length = int.from_bytes(file.read(8), 'little')
            if not 2 <= length <= min(size - 8, LONGEST):
                raise ValueError(f'a head of {length} bytes in a file of {size}')
            entries = json.loads(file.read(length))
        return {
            name: place_of(path, entry, 8 + length, size)
            for name, entry in entries.items()
            if name != '__metadata__'
        }
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror})') from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{path} is damaged, or no safetensors file: {str(error) or type(error).__name__}'
        ) from error


def place_of(path: Path, entry: Mapping[str, Any], first: int, size: int) -> Place:
    """The tensor of an entry of the head.

    Args:
        path: The file.
        entry: ``dtype``, ``shape`` and ``data_offsets``.
        first: Byte at which data begins.
        size: Bytes of the file.

    Raises:
        ValueError: the entry makes no sense, or lies beyond the end of the file.
    """
    if entry['dtype'] not in DTYPES:
        raise ValueError(f'tensors of type {entry["dtype"]!r} are not known')
    shape, (start, end) = tuple(entry['shape']), entry['data_offsets']
    if not all(type(n) is int and n >= 0 for n in (*shape, start, end)):
        raise ValueError(f'shape {shape} at {start} to {end}')
    place = Place(path, DTYPES[entry['dtype']], shape, first + start)
    if place.size != end - start or place.start + place.size > size:
        raise ValueError(f'{place.size} bytes at {start} to {end} of a file of {size}')
    return place


def header_bytes(tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> tuple[bytes, int]:
    """The head of a file that is to hold these tensors, in their order.

    Args:
        tensors: Type and shape by name.

    Returns:
        The bytes before the data, and the number of bytes of the data.
    """
    entries: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        entries[name] = dict(dtype=NAMES[dtype], shape=list(shape), data_offsets=[start, end])
    text = json.dumps(entries, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, 'little') + text, end

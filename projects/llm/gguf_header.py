"""What a GGUF file says of its tensors, without its vocabulary and its numbers."""

import os
import struct
from dataclasses import dataclass
from math import prod

from projects.prune_plugin.common.errors import UserError

#: Bytes of each kind of value in the metadata, by its number in the format; strings and lists vary.
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, LIST = 8, 9
#: The tensors begin at a multiple of this.
ALIGNMENT = 32
#: Most dimensions of a tensor, and its largest size in numbers.
MAX_DIMS, MAX_NUMBERS = 4, 2**40


@dataclass(frozen=True)
class TensorInfo:
    """A tensor in a file.

    Attributes:
        shape: Its dimensions, the fastest first.
        offset: Where it begins, from the first tensor's beginning on.
    """

    shape: tuple[int, ...]
    offset: int

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What a file says of its tensors.

    Attributes:
        tensors: By name, in the order of the file.
        data_bytes: Their size, with what fills the gaps between them.
    """

    tensors: dict[str, TensorInfo]
    data_bytes: int


class Reader:
    """Reads a file from its beginning; never beyond its end.

    Args:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike):
        self.file = open(path, 'rb')  # noqa: SIM115  closed by read_header
        self.left = os.fstat(self.file.fileno()).st_size

    def take(self, count: int) -> bytes:
        """The next bytes.

        Raises:
            ValueError: the file ends before.
        """
        if count > self.left:
            raise ValueError('it ends too early')
        self.left -= count
        return self.file.read(count)

    def number(self, form: str) -> int:
        """The next little-endian number, by its letter in :mod:`struct`."""
        return struct.unpack(f'<{form}', self.take(struct.calcsize(f'<{form}')))[0]

    def text(self) -> str:
        """The next string."""
        return self.take(self.number('Q')).decode('utf-8', 'replace')

    def skip(self, kind: int) -> None:
        """The next value of the metadata, unread."""
        if kind in SIZES:
            self.take(SIZES[kind])
        elif kind == STRING:
            self.take(self.number('Q'))
        elif kind == LIST:
            inner, count = self.number('I'), self.number('Q')
            if inner in SIZES:
                self.take(SIZES[inner] * count)
                return
            if inner != STRING or count > self.left:
                raise ValueError(f'it has a list of kind {inner} with {count} entries')
            for _ in range(count):
                self.skip(STRING)
        else:
            raise ValueError(f'it has a value of kind {kind}')


def read_header(path: str | os.PathLike) -> Header:
    """What a GGUF file says of its tensors.

    Source of the format: docs/gguf.md of github.com/ggml-org/ggml, versions 2 and 3.

    Raises:
        UserError: it is no such file, or it is broken.
    """
    try:
        reader = Reader(path)
    except OSError as error:
        raise UserError(f'checkpoint {path} cannot be read: {error.strerror}') from error
    try:
        with reader.file:
            if reader.take(4) != b'GGUF' or reader.number('I') not in (2, 3):
                raise ValueError('it begins with something else')
            tensors, values = reader.number('Q'), reader.number('Q')
            for _ in range(min(values, reader.left)):
                reader.text()
                reader.skip(reader.number('I'))
            found = dict(tensor_info(reader) for _ in range(min(tensors, reader.left)))
            header = Header(found, max(reader.left - (-reader.file.tell()) % ALIGNMENT, 0))
            if any(tensor.offset >= header.data_bytes for tensor in found.values()):
                raise ValueError('it ends too early')
            return header
    except (ValueError, struct.error) as error:
        raise UserError(f'checkpoint {path} is no GGUF file: {error}') from error


def tensor_info(reader: Reader) -> tuple[str, TensorInfo]:
    """The next tensor's name and description."""
    name, dims = reader.text(), reader.number('I')
    if dims > MAX_DIMS:
        raise ValueError(f'its tensor {name!r} has {dims} dimensions')
    shape = tuple(reader.number('Q') for _ in range(dims))
    if prod(shape) > MAX_NUMBERS:
        raise ValueError(f'its tensor {name!r} has {prod(shape)} numbers')
    reader.number('I')  # the type
    return name, TensorInfo(shape, reader.number('Q'))

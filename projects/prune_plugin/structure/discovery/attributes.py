"""The integers that a forward pass reads from modules: some of them follow the number of units."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..attribute_paths import get, is_count
from ..unit_group import Attr

#: Attributes that slimming itself sets after the shapes of weights.
OWN_WIDTHS = {
    'in_features', 'out_features', 'in_channels', 'out_channels', 'num_features', 'num_channels',
    'num_embeddings', 'embedding_dim',
}  # fmt: skip
Reads = dict[str, set[str]]


@contextmanager
def recorded(model: nn.Module) -> Iterator[Reads]:
    """Which integers are read from which module while the block runs.

    Yields:
        ``{module: paths}``, filled in the block. A path is ``num_heads``, or ``config.num_heads`` for what
        is read from an object, mapping or sequence that the module holds.
    """
    reads: Reads = {}
    classes = {}
    for name, module in model.named_modules():
        classes[module] = type(module)
        if not isinstance(module, nn.ModuleList | nn.ModuleDict | nn.Sequential):
            module.__class__ = reading_class(type(module), name, reads)
    try:
        yield reads
    finally:
        for module, kind in classes.items():
            module.__class__ = kind


def reading_class(kind: type, name: str, reads: Reads) -> type:
    """A subclass that notes which integers are read."""

    def read(self: nn.Module, key: str) -> Any:
        value = kind.__getattribute__(self, key)
        if is_count(value):
            reads.setdefault(name, set()).add(key)
        elif isinstance(value, Mapping | tuple | list) or hasattr(value, 'to_dict'):
            if key not in ('__dict__', '_modules', '_parameters', '_buffers'):
                reads.setdefault(name, set()).update(f'{key}.{inner}' for inner in inside(value))
        return value

    return type(kind.__name__, (kind,), {'__getattribute__': read})


def inside(value: Any) -> list[str]:
    """Keys of the integers in a config, mapping or sequence."""
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, tuple | list):
        items = list(enumerate(value)) if len(value) <= 16 else []
    else:
        items = list(vars(value).items())
    return [str(key) for key, item in items if is_count(item)]


def candidates(model: nn.Module, owner: str, size: int, reads: Reads) -> list[Attr]:
    """Integers read in a module and those in it that are multiples of the number of units."""
    found = []
    for name, module in model.get_submodule(owner).named_modules(prefix=owner):
        name = name.removeprefix('.')
        for path in sorted(reads.get(name, ())):
            value = get(module, path)
            if path not in OWN_WIDTHS and is_count(value) and value % size == 0:
                found.append(Attr(name, path, value // size))
    return found

"""The integers that a forward pass reads from modules: some of them follow the number of units."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from ..attribute_paths import get, is_count
from ..unit_group import Attr, UnitGroup

#: Attributes that slimming itself sets after the shapes of weights.
OWN_WIDTHS = {
    'in_features', 'out_features', 'in_channels', 'out_channels', 'num_features', 'num_channels',
    'num_embeddings', 'embedding_dim', 'normalized_shape',
}  # fmt: skip
#: What every module holds.
MODULE_KEYS = frozenset((*vars(nn.Module()), '__dict__'))
Reads = dict[str, set[str]]


@contextmanager
def recorded(model: nn.Module) -> Iterator[Reads]:
    """Which integers are read from which module while the block runs.

    Yields:
        ``{module: paths}``, filled in the block. A path is ``num_heads``, or ``config.num_heads`` for what
        is read from an object, mapping or sequence that the module holds. What is read from a config counts
        for every module that holds it.
    """
    reads: Reads = {}
    swapped: list[tuple[Any, type]] = []
    configs: dict[int, set[str]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.ModuleDict | nn.Sequential):
            continue
        for value in vars(module).values():
            if is_config(value) and id(value) not in configs:
                configs[id(value)] = set()
                swap(swapped, value, partial(note_config, configs[id(value)]))
        swap(swapped, module, partial(note_module, reads, configs, name))
    try:
        yield reads
    finally:
        for thing, kind in swapped:
            thing.__class__ = kind
    for paths in reads.values():
        for path in [path for path in paths if path.endswith('.*')]:
            paths.remove(path)
            key, _, number = path.removesuffix('.*').rpartition('.')
            paths.update(f'{key}.{inner}' for inner in configs[int(number)])


def is_config(value: Any) -> bool:
    """Whether this is an object with settings, such as Hugging Face's."""
    return hasattr(type(value), 'to_dict') and not isinstance(value, dict)


def swap(swapped: list[tuple[Any, type]], thing: Any, note: Callable[[str, Any], None]) -> None:
    """Let an object tell which attributes are read."""
    kind = type(thing)

    def read(self: Any, key: str) -> Any:
        value = kind.__getattribute__(self, key)  # type: ignore[call-arg]
        note(key, value)
        return value

    try:
        names = dict(__module__=kind.__module__, __qualname__=kind.__qualname__)
        thing.__class__ = type(kind.__name__, (kind,), {'__getattribute__': read, **names})
    except (AttributeError, TypeError):  # of a class that can't be extended
        return
    swapped.append((thing, kind))


def note_config(found: set[str], key: str, value: Any) -> None:
    """Note an integer read from a config."""
    if is_count(value):
        found.add(key)


def note_module(
    reads: Reads, configs: dict[int, set[str]], name: str, key: str, value: Any
) -> None:
    """Note an integer read from a module, or a holder of integers."""
    if is_count(value):
        reads.setdefault(name, set()).add(key)
    elif id(value) in configs:
        reads.setdefault(name, set()).add(f'{key}.{id(value)}.*')
    elif isinstance(value, dict | tuple | list) and key not in MODULE_KEYS:
        reads.setdefault(name, set()).update(f'{key}.{inner}' for inner in inside(value))


def inside(value: Any, depth: int = 2) -> list[str]:
    """Keys of the integers in a mapping or sequence, and in those that it holds."""
    if isinstance(value, Mapping):
        items = list(value.items())
    else:
        items = list(enumerate(value)) if len(value) <= 16 else []
    found = [str(key) for key, item in items if is_count(item)]
    if depth > 1:
        for key, item in items:
            if isinstance(item, dict | tuple | list):
                found += [f'{key}.{inner}' for inner in inside(item, depth - 1)]
    return found


def candidates(
    model: nn.Module, group: UnitGroup, reads: Reads, hints: Collection[int] = ()
) -> list[Attr]:
    """Integers read in a group's owner and the modules in it that are multiples of the number of units.

    Of layers only those count of which the group cuts a tensor; last those that only read the units.

    Args:
        model: The model.
        group: The group.
        reads: From :func:`recorded`.
        hints: Integers that stand in an error message: they may be sums of several groups' widths.
    """
    widths = sorted({cut.per_unit for cut in group.cuts})
    written = {c.name.rpartition('.')[0] for c in group.cuts if c.side == 'in'}
    read = {c.name.rpartition('.')[0] for c in group.cuts} - written
    found: list[Attr] = []
    last: list[Attr] = []
    for name, module in model.get_submodule(group.owner).named_modules(prefix=group.owner):
        layer = next(module.parameters(recurse=False), None) is not None
        inner = layer and not next(module.children(), None)
        if inner and name not in written and name not in read:
            continue
        these = last if inner and name in read else found
        for path in sorted(reads.get(name, ())):
            value = get(module, path)
            if path.split('.')[0] in OWN_WIDTHS or not is_count(value):
                continue
            if value in hints and value % group.size:
                these += [
                    Attr(name, path, width, value - group.size * width)
                    for width in widths
                    if value > group.size * width
                ]
            if value % group.size:
                continue
            if path == 'groups' and value == getattr(module, 'out_channels', None):
                continue  # depthwise, as above
            these.append(Attr(name, path, value // group.size))
    return found + last

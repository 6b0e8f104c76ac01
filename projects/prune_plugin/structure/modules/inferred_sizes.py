"""Methods that reshape to the width of their input, where it is the heads' width that is meant.

``x.reshape(B, N, C)`` with ``C`` of the input is right as long as heads times their width is the
embedding's width. Here one size of such a call becomes -1, in a copy of the method's source: the class is
the user's own, as installed, and nothing but that size changes.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch import nn

from ...common.errors import UserError

NAME = 'InferredSizes'
CALLS = ('reshape', 'view')
_CLASSES: dict[tuple[type, str], type] = {}


class Method:
    """A method's source.

    Args:
        kind: The class.
        name: The method's name.

    Raises:
        ValueError: it can't be written anew: there is no source, it has decorators, or uses ``super()``.
    """

    def __init__(self, kind: type, name: str):
        self.function = inspect.unwrap(getattr(kind, name))
        try:
            source = textwrap.dedent(inspect.getsource(self.function))
        except (OSError, TypeError) as error:
            raise ValueError(f'no source of {kind.__name__}.{name}') from error
        self.tree = ast.parse(source)
        ast.increment_lineno(self.tree, self.function.__code__.co_firstlineno - 1)
        node = self.tree.body[0]
        if not isinstance(node, ast.FunctionDef) or node.decorator_list:
            raise ValueError(f'{kind.__name__}.{name} has decorators')
        if self.function.__closure__:
            raise ValueError(f'{kind.__name__}.{name} uses variables around it')
        self.calls = [call for call in ast.walk(self.tree) if sizes_of(call)]
        self.calls.sort(key=lambda call: (call.lineno, call.end_col_offset))  # type: ignore[attr-defined]

    def on_line(self, line: int) -> Iterator[tuple[int, int]]:
        """Calls on a line and the sizes in them that may become -1, the last ones first."""
        for number, call in enumerate(self.calls):
            if call.lineno <= line <= (call.end_lineno or line):  # type: ignore[attr-defined]
                sizes = sizes_of(call)
                if not any(is_inferred(size) for size in sizes):
                    yield from ((number, place) for place in reversed(range(len(sizes))))

    def with_inferred(self, places: list[tuple[int, int]]) -> Callable:
        """The method with these sizes inferred."""
        for number, place in places:
            sizes = sizes_of(self.calls[number])
            sizes[place] = ast.copy_location(ast.parse('-1', mode='eval').body, sizes[place])
        ast.fix_missing_locations(self.tree)
        found: dict[str, Any] = {}
        code = compile(self.tree, inspect.getfile(self.function), 'exec')
        exec(code, self.function.__globals__, found)
        return found[self.function.__name__]


def sizes_of(node: ast.AST) -> list[ast.expr]:
    """The sizes in a call of ``x.reshape`` or ``x.view``; none for other nodes."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return []
    if node.func.attr not in CALLS or node.keywords:
        return []
    of_torch = ast.unparse(node.func.value) == 'torch'  # torch.reshape(x, sizes)
    sizes = node.args[1:] if of_torch else node.args
    if len(sizes) == 1 and isinstance(sizes[0], ast.Tuple | ast.List):
        sizes = sizes[0].elts
    if len(sizes) < 2 or any(isinstance(size, ast.Starred) for size in sizes):
        return []
    return sizes


def is_inferred(size: ast.expr) -> bool:
    """Whether a size is -1."""
    return ast.unparse(size) == '-1'


def spec(method: str, places: list[tuple[int, int]]) -> str:
    """The name of a converter: the method, and which size of which call is inferred."""
    return f'{NAME}:{method}:' + ','.join(f'{number}.{place}' for number, place in places)


def parse(name: str) -> tuple[str, list[tuple[int, int]]] | None:
    """The inverse of :func:`spec`; None for another converter."""
    kind, _, rest = name.partition(':')
    method, _, places = rest.partition(':')
    if kind != NAME or not method.isidentifier():
        return None
    try:
        pairs = [tuple(map(int, place.split('.'))) for place in places.split(',')]
    except ValueError:
        return None
    return (method, pairs) if all(len(pair) == 2 for pair in pairs) else None  # type: ignore[return-value]


def to_inferred_sizes(module: nn.Module, name: str) -> nn.Module:
    """Give a module a class of its own whose method infers sizes.

    Raises:
        UserError: the class isn't the one that the name was made for.
    """
    if getattr(type(module), 'inferred_sizes', None) == name:
        return module
    key = type(module), name
    if key not in _CLASSES:
        method, places = parse(name) or ('', [])
        try:
            function = Method(type(module), method).with_inferred(places)
        except (ValueError, AttributeError, IndexError) as error:
            raise UserError(
                f'prune_state: {type(module).__name__} is not the class that was pruned ({error}); '
                'install the version of its package with which the model was pruned'
            ) from error
        _CLASSES[key] = type(
            f'Slim{type(module).__name__}',
            (type(module),),
            {method: function, 'inferred_sizes': name, '__reduce_ex__': reduced},
        )
    module.__class__ = _CLASSES[key]
    return module


def reduced(module: nn.Module, protocol: int) -> tuple:
    """For pickle and copies: the user's own class, and what was done to it."""
    made = [kind for kind in type(module).__mro__ if 'inferred_sizes' in vars(kind)]
    names = [kind.inferred_sizes for kind in reversed(made)]  # type: ignore[attr-defined]
    return remade, (made[-1].__mro__[1], names), vars(module)


def remade(kind: type[nn.Module], names: list[str]) -> nn.Module:
    """An empty module of a class with inferred sizes."""
    module: nn.Module = object.__new__(kind)
    for name in names:
        module = to_inferred_sizes(module, name)
    return module


@dataclass(frozen=True)
class Failure:
    """Where a reshape failed.

    Attributes:
        module: Name of the module whose method it is in.
        method: The method's name.
        line: The line of its source file.
        sizes: ``(call, size)`` pairs that might be inferred.
    """

    module: str
    method: str
    line: int
    sizes: tuple[tuple[int, int], ...]

    @property
    def place(self) -> tuple[str, str, int]:
        """Without what might be done about it."""
        return self.module, self.method, self.line


def first_argument(frame: FrameType) -> Any:
    """What a function was called with first: of a method the object, whatever it is called there.

    Of a comprehension inside of a method it is the method's.
    """
    while frame.f_code.co_name.startswith('<') and frame.f_back is not None:
        frame = frame.f_back
    code = frame.f_code
    return frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None


def failing_reshape(error: BaseException, model: nn.Module) -> Failure | None:
    """The innermost method of one of a model's modules that raised an error, with its reshapes there."""
    traceback, module, method, line = error.__traceback__, None, '', 0
    while traceback is not None:
        frame = traceback.tb_frame
        inner = first_argument(frame)
        if isinstance(inner, nn.Module) and not frame.f_code.co_filename.endswith(
            '/nn/modules/module.py'
        ):
            if not frame.f_code.co_name.startswith(
                '<'
            ):  # else a comprehension inside of the method
                module, method = inner, frame.f_code.co_name
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    name = next((n for n, m in model.named_modules() if m is module), None)
    if name is None or module is None:
        return None
    kind = next(c for c in type(module).__mro__ if 'inferred_sizes' not in vars(c))
    try:
        sizes = tuple(Method(kind, method).on_line(line))
    except (ValueError, AttributeError):
        return None
    return Failure(name, method, line, sizes)

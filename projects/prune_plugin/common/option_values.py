"""Words of ``--cfg-options``: values that MMEngine can't read, and places that a config hasn't.

MMEngine reads numbers, strings, lists and tuples alone, and takes brackets, commas and spaces inside quotes
for its own.
"""

import ast
import re
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from .errors import UserError

#: What stands in quotes.
QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")


def is_literal(text: str) -> bool:
    """Whether a value is to be read as Python, since MMEngine can't: it holds dicts, or quoted brackets."""
    if 'dict(' in text or '{' in text:
        return True
    text = text.strip()
    if text[:1] in ('[', '('):
        return any(re.search(r'[][(),\s]', quote) for quote in QUOTED.findall(text))
    return text != '' and QUOTED.fullmatch(text) is not None and is_unbalanced(text)


def is_unbalanced(text: str) -> bool:
    """Whether MMEngine would refuse a text for its brackets."""
    return any(text.count(a) != text.count(b) for a, b in ('()', '[]'))


def parse_value(key: str, text: str) -> Any:
    """A Python literal, in which ``dict(type='X')`` stands for ``{'type': 'X'}``; nothing is evaluated.

    Args:
        key: What it is for, for the message.
        text: The literal.

    Raises:
        UserError: it is none.
    """
    try:
        tree = ast.parse(text.strip(), mode='eval')
        return ast.literal_eval(AsDisplay().visit(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(
            f'--cfg-options {key}={text} cannot be read; write it as in a config, quoted for the shell: '
            f'"{key}=[dict(type=\'X\', size=1)]"'
        ) from error


def check_place(cfg: Config, key: str) -> None:
    """Raise :class:`UserError` if a config has no place for a key of ``--cfg-options``.

    Args:
        cfg: The config.
        key: Keys and numbers of list entries, joined by dots.
    """
    value: Any = dict(cfg.items())
    parts = key.split('.')
    for number, part in enumerate(parts):
        path = '.'.join(parts[:number])
        if isinstance(value, list | tuple):
            if not part.isdecimal() or int(part) >= len(value):
                numbers = f'its entries are 0 to {len(value) - 1}' if value else 'it is empty'
                raise UserError(
                    f'--cfg-options {key}: {path} is a list without an entry {part}; {numbers}; to give '
                    f'more, write the whole list: "{path}=[dict(...), dict(...)]"'
                )
            value = value[int(part)]
        elif isinstance(value, Mapping):
            if part not in value:
                return
            value = value[part]
        else:
            raise UserError(
                f'--cfg-options {key}: {path} is {value!r}, which has no key {part}; write it as a whole: '
                f'"{path}=dict({part}=...)"'
            )


class AsDisplay(ast.NodeTransformer):
    """Turns ``dict(a=1)`` into ``{'a': 1}``."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """See :class:`ast.NodeTransformer`."""
        self.generic_visit(node)
        is_dict = isinstance(node.func, ast.Name) and node.func.id == 'dict'
        if not is_dict or node.args or any(keyword.arg is None for keyword in node.keywords):
            return node
        keys: list[ast.expr | None] = [ast.Constant(keyword.arg) for keyword in node.keywords]
        return ast.Dict(keys, [keyword.value for keyword in node.keywords])

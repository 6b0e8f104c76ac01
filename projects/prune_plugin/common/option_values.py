"""Values of ``--cfg-options`` that hold dicts: MMEngine reads numbers, strings, lists and tuples alone."""

import ast
from typing import Any

from .errors import UserError


def holds_dict(text: str) -> bool:
    """Whether a value is one that MMEngine can't read."""
    return 'dict(' in text or '{' in text


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

"""Errors caused by the user's input; the command-line tools exit with code 2 on them."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Invalid input. The message is one sentence with the key or file, its value, and what is valid."""


class InfeasibleBudgetError(UserError):
    """The budget asks to remove more than ``min_keep`` and the groups' minimum sizes allow.

    Args:
        message: The message.
        most: The largest feasible ratio (fraction removed).
    """

    def __init__(self, message: str, most: float):
        super().__init__(message, most)
        self.most = most

    def __str__(self) -> str:
        return self.args[0]


class DataNotFoundError(UserError):
    """A data set is missing at the path in the config; evaluation is then skipped, and that is logged."""


@contextmanager
def error_context(what: str) -> Iterator[None]:
    """Prefix the message of a :class:`UserError` raised inside with ``what``, such as a file."""
    try:
        yield
    except UserError as error:
        raise UserError(f'{what}: {error}') from error


def format_value(value: object) -> str:
    """``repr`` of a value on one line, cut off after 100 characters."""
    text = ' '.join(repr(value).split())
    return text if len(text) <= 100 else f'{text[:100]}...'


def first_line(error: BaseException) -> str:
    """First line of an error's message, or the name of its type if the message is empty."""
    return str(error).strip().partition('\n')[0] or type(error).__name__

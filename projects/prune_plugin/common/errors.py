"""The errors that are the user's to mend: the tools turn them into exit code 2."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Bad input: one sentence that names the key or file, its value, and what would be valid."""


class InfeasibleBudgetError(UserError):
    """More is to be removed than the floors allow.

    Args:
        message: The sentence.
        most: The largest ratio that they do allow.
    """

    def __init__(self, message: str, most: float):
        super().__init__(message, most)
        self.most = most

    def __str__(self) -> str:
        return self.args[0]


class DataNotFoundError(UserError):
    """A data set isn't where the config says it is; evaluation is then skipped with a word."""


@contextmanager
def error_context(what: str) -> Iterator[None]:
    """Say of what file a :class:`UserError` inside speaks."""
    try:
        yield
    except UserError as error:
        raise UserError(f'{what}: {error}') from error


def format_value(value: object) -> str:
    """A value on one line, shortened: tensors and nested dicts take many."""
    text = ' '.join(repr(value).split())
    return text if len(text) <= 100 else f'{text[:100]}...'


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its type, for the sentence of a :class:`UserError`."""
    return str(error).strip().partition('\n')[0] or type(error).__name__

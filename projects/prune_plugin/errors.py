"""The errors that are the user's to mend: the tools turn them into exit code 2."""


class UserError(ValueError):
    """Bad input: one sentence that names the key or file, its value, and what would be valid."""


class UnreachableError(UserError):
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


def first_line(error: BaseException) -> str:
    """An error's type and the first line of what it says, for the sentence of a :class:`UserError`."""
    said = str(error).strip().partition('\n')[0]
    return f'{type(error).__name__}: {said}' if said else type(error).__name__

"""The errors that are the user's to mend: the tools turn them into exit code 2."""


class UserError(ValueError):
    """Bad input: one sentence that names the key or file, its value, and what would be valid."""


class DataNotFoundError(UserError):
    """A data set isn't where the config says it is; evaluation is then skipped with a word."""

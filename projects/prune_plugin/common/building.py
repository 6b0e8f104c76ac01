"""Mistakes in a config that only show when something is built from it, told by the key."""

from collections.abc import Iterator
from contextlib import contextmanager

from .config_errors import describe_config_error
from .errors import UserError, first_line

#: Packages that check what they are given by raising; what others raise is a bug of theirs.
LIBRARIES = ('mmengine', 'mmcv', 'mmdet', 'mmdet3d', 'mmseg', 'mmpretrain', 'torch', 'torchvision')
MISTAKES = (
    AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError,
    ZeroDivisionError,
)  # fmt: skip
#: Those whose messages are sentences.
SAYING_ALL = (AssertionError, RuntimeError, ValueError)


@contextmanager
def built_from(key: str) -> Iterator[None]:
    """Turn what a library raises while the body builds from a config into a :class:`UserError`.

    Args:
        key: Of the config.
    """
    try:
        yield
    except UserError:
        raise
    except MISTAKES as error:
        said = describe_config_error(error)
        if said is None and is_of_caller_or_library(error):
            said = first_line(error)
            if not isinstance(error, SAYING_ALL):
                said = f'{type(error).__name__}: {said}'
        if said is None:
            raise
        has_key = said.startswith(f'{key}.')
        raise UserError(said if has_key else f'{key}: {said}') from error


def is_of_caller_or_library(error: BaseException) -> bool:
    """Whether a library has raised an error, or the body itself, as by a call with unknown arguments."""
    body = error.__traceback__ and error.__traceback__.tb_next  # behind the frame of built_from
    return body is not None and (
        body.tb_next is None or raised_in(error).partition('.')[0] in LIBRARIES
    )


def raised_in(error: BaseException) -> str:
    """Name of the module whose code raised an error."""
    traceback, name = error.__traceback__, ''
    while traceback is not None:
        name, traceback = traceback.tb_frame.f_globals.get('__name__', ''), traceback.tb_next
    return name

"""Building a settings dataclass from a block of the config."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

from .errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar('Settings', bound='DataclassInstance')


def read_settings(cls: type[Settings], cfg: Mapping, key: str) -> Settings:
    """Build the settings dataclass ``cls`` from a config block.

    Args:
        cls: The dataclass.
        cfg: The block.
        key: Path of the block in the user's config, for messages (``prune_cfg.calibration``).

    Raises:
        UserError: ``cfg`` is no dict, a key is unknown, or the dataclass rejects a value.
    """
    if not isinstance(cfg, Mapping):
        raise UserError(f'{key} is {cfg!r}; it must be a dict')
    valid = [f.name for f in fields(cls)]
    for name in cfg:
        if name not in valid:
            raise UserError(f'{key}.{name} is not a key; valid are {", ".join(valid)}')
    try:
        return cls(**cfg)
    except UserError as error:
        raise UserError(f'{key}.{error}') from error

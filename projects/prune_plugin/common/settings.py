"""Reading a block of the config into a dataclass of settings."""

from collections.abc import Mapping
from dataclasses import fields

from .errors import UserError


def read_settings(cls: type, cfg: Mapping, key: str):
    """Build the settings dataclass ``cls`` from a config block, refusing unknown keys."""
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

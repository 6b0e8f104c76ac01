"""What of ``--save-gguf`` can be refused before any work."""

from collections.abc import Mapping
from typing import Any

from projects.prune_plugin.common.errors import UserError

from ..models.pretrained import config_from, read_config
from ..models.sources import find_source
from .architectures import architecture_of
from .layout import TYPES


def check_gguf(model: Mapping[str, Any], kind: str) -> None:
    """Raise :class:`UserError` if a model can't be written as a GGUF file, as far as its config tells.

    Args:
        model: The config of an ``HFCausalLM``.
        kind: Of the weights, a key of ``TYPES``.
    """
    if kind not in TYPES:
        raise UserError(f'--gguf-type {kind} is unknown; valid are {", ".join(TYPES)}')
    if model.get('architecture') is not None:
        config = config_from(model['architecture'])
    else:
        trusted = bool(model.get('trust_remote_code'))
        config = read_config(find_source(model.get('path')), trusted)
    architecture_of(config)

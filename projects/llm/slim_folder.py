"""Reading the folders of language models whose layers differ in width, without running their code."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

from projects.prune_plugin.common.errors import UserError

from .modeling_slim import cut_layers


def load_slim(folder: str | os.PathLike, **kwargs) -> PreTrainedModel:
    """Load a folder of ``save_hf``, every name and shape checked; no code in it is run.

    Args:
        folder: The folder; a plain one will do too.
        kwargs: Of ``from_pretrained``, such as ``dtype``.

    Returns:
        The transformers model, in evaluation mode.

    Raises:
        UserError: there is no such folder, or its weights don't fit its config.
    """
    path = Path(folder) / 'config.json'
    try:
        data = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(
            f'{path} cannot be read; give a folder that --save-hf has written'
        ) from error
    config = slim_config(data, path) if 'slim_widths' in data else None
    try:
        model, info = auto_class(config).from_pretrained(
            folder, config=config, output_loading_info=True, local_files_only=True, **kwargs
        )
    except (OSError, RuntimeError, ValueError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f'{folder} cannot be loaded: {said}') from error
    for fault in ('missing_keys', 'unexpected_keys', 'mismatched_keys'):
        if info[fault]:
            names = ', '.join(map(str, list(info[fault])[:3]))
            raise UserError(f'{folder} does not fit its config.json: {fault} {names}')
    return model


def slim_config(data: Mapping[str, Any], path: str | os.PathLike) -> PreTrainedConfig:
    """The config of a slim folder, in transformers' own class, with the widths as attributes.

    Args:
        data: What ``config.json`` holds.
        path: The file, for messages.
    """
    base = data.get('slim_base')
    if base not in CONFIG_MAPPING:
        raise UserError(f'{path}: slim_base is {base!r}, an architecture that transformers lacks')
    own = {k: v for k, v in data.items() if k not in ('model_type', 'auto_map', 'architectures')}
    return CONFIG_MAPPING[base].from_dict(own)


def auto_class(config: PreTrainedConfig | None) -> type:
    """What builds and loads a config's model: ``AutoModelForCausalLM``, or for a :func:`slim_config`
    a class of its own with the same ``from_config`` and ``from_pretrained``."""
    base = getattr(config, 'slim_base', None)
    if base not in CONFIG_MAPPING or type(config) is not CONFIG_MAPPING[base]:
        return AutoModelForCausalLM
    dense: type[PreTrainedModel] = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]

    class Slim(dense):
        def __init__(self, config: PreTrainedConfig):
            super().__init__(config)
            cut_layers(self, config.slim_widths, config.slim_attributes)

        @classmethod
        def from_config(cls, config: PreTrainedConfig, trust_remote_code: bool = False, **kwargs):
            return cls._from_config(config, **kwargs)

    Slim.__name__ = f'Slim{dense.__name__}'
    return Slim

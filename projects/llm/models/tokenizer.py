"""Tokenizers, from wherever a model may lie."""

import json
from functools import lru_cache

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from projects.prune_plugin.common.errors import UserError

from .sources import find_source, reason


@lru_cache(maxsize=4)
def load_tokenizer(
    path: str, trust_remote_code: bool = False, key: str = 'tokenizer'
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model; the same object for the same path.

    Args:
        path: As ``HFCausalLM`` takes it.
        trust_remote_code: Whether code in a folder may run.
        key: The config key, for messages.

    Raises:
        UserError: there is none, or it can't be read.
    """
    source = find_source(path, key, needed='tokenizer*')
    try:
        return AutoTokenizer.from_pretrained(
            source.folder,
            gguf_file=source.gguf,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
        )
    except ImportError as err:
        raise UserError(
            f'{key}={path!r} needs another package ({reason(err)}); pip install -e ".[llm]" '
            'brings all'
        ) from err
    except Exception as err:  # tokenizers raises plain Exceptions, and each class has its own
        raise UserError(
            f'{key}={path!r} holds no tokenizer that transformers can read: {reason(err)}'
        ) from err


def longest_window(path: str) -> int | None:
    """Most tokens that the model beside a tokenizer takes, if its ``config.json`` says so.

    Args:
        path: As ``HFCausalLM`` takes it.

    Raises:
        UserError: there is no tokenizer.
    """
    source = find_source(path, 'tokenizer', needed='tokenizer*')
    file = source.folder / 'config.json'
    if source.gguf or not file.is_file():
        return None
    config = json.loads(file.read_text(encoding='utf-8'))
    return config.get('max_position_embeddings', config.get('n_positions'))

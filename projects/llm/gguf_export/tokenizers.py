"""Tokenizers as GGUF files hold them: copied from one, or written from a folder's tokenizer.json."""

import json
from pathlib import Path
from typing import Any

import gguf

from projects.prune_plugin.common.errors import UserError

from ..models.sources import Source
from ..models.tokenizer import load_tokenizer
from .architectures import FLAG

#: How llama.cpp calls ways of splitting a text before pairs are merged: a part of the pattern that is
#: theirs alone, and the name. (Regular expressions of the tokenizers' own files.)
SPLITS = (
    ('[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|', 'llama-bpe'),
    ('[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|', 'qwen2'),
)
INSTEAD = 'give a model.path that is a GGUF file, or save a folder with --save-hf'


def add_tokenizer(
    writer: gguf.GGUFWriter, source: Source | None, path: str | None, size: int
) -> None:
    """Put a model's tokenizer into a file.

    Args:
        writer: The file.
        source: Where the model lies; None: its weights are random, and it has none.
        path: The same, as the user gave it.
        size: Tokens that the model knows.

    Raises:
        UserError: it is of a kind that can't be written.
    """
    if source is None or path is None:
        writer.add_tokenizer_model('no_vocab')
    elif source.gguf:
        copy_fields(writer, source.folder / source.gguf)
    elif (source.folder / 'tokenizer.model').is_file():
        add_sentencepiece(writer, source.folder, size)
    else:
        add_byte_pairs(writer, path, source.folder, size)


def copy_fields(writer: gguf.GGUFWriter, path: Path) -> None:
    """Copy what another GGUF file says of its tokenizer."""
    for key, field in gguf.GGUFReader(path).fields.items():
        if key.startswith('tokenizer.'):
            kind = field.types[0]
            sub = field.types[1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), kind, sub)


def add_sentencepiece(writer: gguf.GGUFWriter, folder: Path, size: int) -> None:
    """Write a tokenizer of SentencePiece, from ``tokenizer.model``."""
    try:
        import sentencepiece  # noqa: F401  gguf reads with it
    except ImportError as error:
        raise UserError(
            f'{FLAG}: the tokenizer in {folder} is of SentencePiece; install it by '
            'pip install sentencepiece'
        ) from error
    vocabulary = gguf.vocab.SentencePieceVocab(folder)
    tokens, scores, types = [], [], []
    for text, score, kind in vocabulary.all_tokens():
        tokens.append(text)
        scores.append(score)
        types.append(kind)
    for i in range(len(tokens), size):
        tokens.append(f'[PAD{i}]'.encode())
        scores.append(-1000.0)
        types.append(gguf.TokenType.UNUSED)
    writer.add_tokenizer_model('llama')
    writer.add_tokenizer_pre('default')
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    gguf.SpecialVocab(folder, n_vocab=len(tokens)).add_to_gguf(writer, quiet=True)


def add_byte_pairs(writer: gguf.GGUFWriter, path: str, folder: Path, size: int) -> None:
    """Write a tokenizer of byte pairs, from ``tokenizer.json``."""
    tokenizer = load_tokenizer(path, key='model.path')
    backend = getattr(tokenizer, 'backend_tokenizer', None)
    described = json.loads(backend.to_str()) if backend is not None else {}
    model = described.get('model') or {}
    if model.get('type') != 'BPE' or 'ByteLevel' not in json.dumps(described.get('pre_tokenizer')):
        raise UserError(f'{FLAG}: the tokenizer of {path} is not one of byte pairs; {INSTEAD}')
    added = {token['id']: token for token in described.get('added_tokens') or ()}
    by_id = {number: text for text, number in tokenizer.get_vocab().items()}
    tokens, types = [], []
    for number in range(max(size, max(by_id) + 1)):
        tokens.append(by_id.get(number, f'[PAD{number}]'))
        if number not in by_id:
            types.append(gguf.TokenType.UNUSED)
        elif number in added:
            special = added[number]['special']
            types.append(gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED)
        else:
            types.append(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model('gpt2')
    writer.add_tokenizer_pre(split_of(described, path))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    gguf.SpecialVocab(folder, load_merges=True, n_vocab=len(tokens)).add_to_gguf(writer, quiet=True)


def split_of(described: dict[str, Any], path: str) -> str:
    """llama.cpp's name of how a tokenizer splits a text before merging.

    Raises:
        UserError: it isn't known here.
    """
    text = json.dumps(described['pre_tokenizer'])
    steps = described['pre_tokenizer'].get('pretokenizers') or [described['pre_tokenizer']]
    kinds = [step['type'] for step in steps]
    for part, name in SPLITS:
        if json.dumps(part)[1:-1] in text:
            return name
    if kinds == ['ByteLevel']:
        return 'gpt-2'
    if kinds == ['Digits', 'ByteLevel'] and steps[0].get('individual_digits'):
        return 'smollm'
    raise UserError(
        f'{FLAG}: how the tokenizer of {path} splits a text has no name in llama.cpp that is known '
        f'here; {INSTEAD}'
    )

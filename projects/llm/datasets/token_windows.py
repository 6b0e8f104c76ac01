"""Windows of equal length out of a long text."""

import json
import random
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from mmengine.registry import DATASETS
from torch import Tensor
from torch.utils.data import Dataset

from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.common.wrappable import Wrappable

from ..models.tokenizer import load_tokenizer, longest_window
from .text import PYDOC, check_source, local_files, read_rows

STARTS = ('consecutive', 'random')


@DATASETS.register_module()
class TokenWindows(Wrappable, Dataset):
    """A text, tokenized as a whole and cut into windows of equal length.

    Items are ``dict(inputs=int64 tensor (window,), scored=int)``; ``scored`` says how many tokens
    at the end of the window count for perplexity: those that no earlier window has shown, never the
    very first one, as nothing precedes it. What is left at the end of the text is dropped.

    Args:
        tokenizer: Where the tokenizer lies, as ``HFCausalLM.path``.
        source: ``'pydoc'`` for Python's own documentation, or a dict: ``files``, a path, a pattern,
            a folder, or a list of them, or a dict of these by split; ``rows``, 'files' (a text file
            is one row) or 'lines'; ``column``, the text's in ``.jsonl``, ``.json`` and ``.parquet``
            files and on the hub; ``hub``, where files are missing: a dict with ``path``, ``name``,
            ``data_files`` (by split) and ``split`` (the hub's names of train, valid and test).
        split: 'train', 'valid' or 'test'.
        data_root: What relative ``files`` are relative to.
        window: Tokens of a window.
        stride: Tokens from one window's start to the next, 1 to ``window``; None: ``window``.
        max_windows: Take the first so many consecutive windows; None: all.
        starts: 'consecutive', or 'random' for starts drawn one after the other by
            ``random.Random(seed).randint(0, tokens - window - 1)``, as SparseGPT's code does.
        num_windows: How many random windows.
        seed: Of the random starts.
        separator: What rows are joined by.
        max_rows: Use the first so many rows; None: all.
        add_special_tokens: Whether the text begins (and maybe ends) with the tokenizer's own tokens.
        trust_remote_code: Whether code that lies with the tokenizer may run.

    Raises:
        DataNotFoundError: the text isn't there.
        UserError: it is too short, or an argument isn't valid.

    Example::

        dataset=dict(type='TokenWindows', tokenizer='facebook/opt-125m', window=512,
                     source=dict(files='data/book.txt'))
    """

    def __init__(
        self,
        tokenizer: str,
        source: str | Mapping,
        split: str = 'test',
        data_root: str = '',
        window: int = 512,
        stride: int | None = None,
        max_windows: int | None = None,
        starts: str = 'consecutive',
        num_windows: int | None = None,
        seed: int = 0,
        separator: str = '\n\n',
        max_rows: int | None = None,
        add_special_tokens: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        check_source(source, split)
        stride = window if stride is None else stride
        check_numbers(window, stride, max_windows, starts, num_windows, max_rows)
        limit = longest_window(tokenizer)
        if limit and window > limit:
            raise UserError(
                f'window={window} is longer than the {limit} tokens that the model in '
                f'{tokenizer!r} takes (max_position_embeddings)'
            )
        self.tokens = text_tokens(
            tokenizer,
            trust_remote_code,
            source=source,
            split=split,
            data_root=data_root,
            max_rows=max_rows,
            separator=separator,
            add_special_tokens=add_special_tokens,
        )
        total = len(self.tokens)
        needed = window + 1 if starts == 'random' else window
        if total < needed:
            raise UserError(
                f'the {split} text of source={source!r} has {total} tokens, and a window of '
                f'{window} needs {needed}; give a longer text or a smaller window'
            )
        if starts == 'random':
            draw = random.Random(seed)
            self.starts = [draw.randint(0, total - window - 1) for _ in range(num_windows)]
            stride = window
        else:
            self.starts = list(range(0, total - window + 1, stride))[:max_windows]
        self.window, self.stride = window, stride

    @property
    def metainfo(self) -> dict[str, Any]:
        """``window`` and ``stride`` in tokens, ``text_tokens`` of the whole text."""
        return dict(window=self.window, stride=self.stride, text_tokens=len(self.tokens))

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> dict:
        index = range(len(self.starts))[index]
        start = self.starts[index]
        overlaps = index > 0 and self.stride < self.window
        scored = self.stride if overlaps else self.window - 1
        return {'inputs': self.tokens[start : start + self.window].clone(), 'scored': scored}


def check_numbers(
    window: Any, stride: Any, max_windows: Any, starts: Any, num_windows: Any, max_rows: Any
) -> None:
    """Raise :class:`UserError` for arguments of ``TokenWindows`` that aren't valid."""
    if type(window) is not int or window < 2:
        raise UserError(f'window={window!r} must be an integer of at least 2')
    if type(stride) is not int or not 1 <= stride <= window:
        raise UserError(f'stride={stride!r} must be an integer from 1 to window={window}')
    if starts not in STARTS:
        raise UserError(f'starts={starts!r} is unknown; valid are {", ".join(STARTS)}')
    counts = dict(max_windows=max_windows, num_windows=num_windows, max_rows=max_rows)
    for name, value in counts.items():
        if value is not None and (type(value) is not int or value < 1):
            raise UserError(f'{name}={value!r} must be an integer of at least 1')
    if starts == 'random' and (num_windows is None or max_windows is not None):
        raise UserError("starts='random' needs num_windows, and takes no max_windows")
    if starts == 'random' and stride != window:
        raise UserError("starts='random' takes no stride")
    if starts == 'consecutive' and num_windows is not None:
        raise UserError(
            "num_windows goes with starts='random'; max_windows limits consecutive ones"
        )


def text_tokens(tokenizer: str, trust_remote_code: bool, **text: Any) -> Tensor:
    """Tokens of a text, ``(tokens,)`` int64; of the last few texts they are kept.

    Args:
        tokenizer: Where the tokenizer lies.
        trust_remote_code: Whether code that lies with it may run.
        text: Arguments of ``TokenWindows`` that the text depends on.
    """
    files = []
    if text['source'] != PYDOC:
        files = local_files(text['source'], text['split'], text['data_root'])
    stamp = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    try:
        key = json.dumps(text)
    except TypeError as err:
        raise UserError(f'source={text["source"]!r} must be made of plain values') from err
    return _text_tokens(tokenizer, trust_remote_code, key, stamp)


@lru_cache(maxsize=4)
def _text_tokens(tokenizer: str, trust_remote_code: bool, text: str, stamp: tuple) -> Tensor:
    arguments = json.loads(text)
    separator, special = arguments.pop('separator'), arguments.pop('add_special_tokens')
    words = separator.join(read_rows(**arguments))
    read = load_tokenizer(tokenizer, trust_remote_code)
    ids = read(words, add_special_tokens=special, verbose=False)['input_ids']
    return torch.tensor(ids, dtype=torch.long)

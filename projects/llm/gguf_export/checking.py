"""Whether llama.cpp computes what PyTorch does: the same file, a few tokens, probabilities side by side."""

import os
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from projects.prune_plugin.common.errors import UserError

from ..models.tokenizer import load_tokenizer
from .architectures import FLAG

#: A text to continue: words, digits, an accent.
PROBE = 'In 1969, the café at the corner of the street was'
#: How far the log-probabilities of the ten most likely next tokens may be off in the mean, in nats.
TOLERANCE = {'f32': 0.01, 'f16': 0.03, 'bf16': 0.1, 'q8_0': 0.15, 'q4_0': 1.5}


def check_file(lm: PreTrainedModel, path: Path, source: str | None, kind: str) -> str:
    """Load a file in llama.cpp and compare what comes after a short text; in a few words what was found.

    Args:
        lm: The model as PyTorch runs it.
        path: The file.
        source: Where its tokenizer lies; None: it has none, and nothing can be compared.
        kind: Type of the file's weights.

    Raises:
        UserError: llama.cpp refuses the file, or says something else than PyTorch.
    """
    if source is None:
        return 'not run in llama.cpp: it has no tokenizer'
    if find_spec('xllamacpp') is None:
        return 'not run in llama.cpp: install xllamacpp to have it checked'
    ids = load_tokenizer(source)(PROBE, return_tensors='pt').input_ids
    with torch.no_grad():
        logits = lm(input_ids=ids.to(lm.device), use_cache=False).logits[0, -1]
    expected = logits.float().log_softmax(-1).cpu()
    answer = completed(path, PROBE, 1)
    if answer['usage']['prompt_tokens'] != ids.shape[1]:
        raise UserError(
            f'{FLAG}: llama.cpp splits a text into {answer["usage"]["prompt_tokens"]} tokens, and '
            f'transformers into {ids.shape[1]}: the tokenizer cannot be written'
        )
    best = answer['choices'][0]['logprobs']['content'][0]['top_logprobs']
    apart = sum(abs(entry['logprob'] - float(expected[entry['id']])) for entry in best) / len(best)
    if not apart <= TOLERANCE[kind]:
        raise UserError(
            f'{FLAG}: after {PROBE!r} the log-probabilities of the next token in llama.cpp are {apart:.2g} '
            'off those in PyTorch; the file is not kept'
        )
    return f'in llama.cpp the ten most likely next tokens are {apart:.1g} nats off PyTorch'


def completed(path: str | os.PathLike, prompt: str | list[int], tokens: int, **more: Any) -> Any:
    """llama.cpp's greedy continuation of a prompt, with the log-probabilities of the ten best.

    Raises:
        UserError: it refuses the file.
    """
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = os.fspath(path)
    settings.n_ctx = more.pop('context', 512)
    settings.warmup = False
    settings.n_parallel = 1
    exact = xllamacpp.ggml_type.GGML_TYPE_F32  # not the file's precision, but that of running it
    settings.cache_type_k = settings.cache_type_v = exact
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    settings.cpuparams.n_threads = torch.get_num_threads()
    with silent():
        try:
            server = xllamacpp.Server(settings)
        except RuntimeError as error:
            raise UserError(f'{FLAG}: llama.cpp refuses the file: {error}') from error
        request = dict(
            prompt=prompt, max_tokens=tokens, temperature=0, top_k=1, logprobs=10, **more
        )
        return server.handle_completions(request)


@contextmanager
def silent():
    """Without what llama.cpp itself says on standard error."""
    with open(os.devnull, 'w') as nowhere, redirect_stderr(nowhere):
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)

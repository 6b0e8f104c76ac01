"""Running GGUF files in llama.cpp, by the package ``xllamacpp``, in full precision on the CPU."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

from projects.prune_plugin.common.errors import UserError, first_line

#: Enough to have a token chosen whatever the model thinks of it.
CERTAIN = 1e6


def is_installed() -> bool:
    """Whether llama.cpp can be run."""
    return find_spec('xllamacpp') is not None


class LlamaCpp:
    """One GGUF file in llama.cpp.

    Args:
        path: The file.
        key: What names it, for messages.
        context: Most tokens of a text.
        threads: CPU threads; None: as many as PyTorch has.

    Raises:
        UserError: llama.cpp refuses the file.
    """

    def __init__(
        self, path: str | os.PathLike, key: str, context: int = 512, threads: int | None = None
    ):
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path = os.fspath(path)
        settings.n_ctx = self.context = context
        settings.warmup = False
        settings.n_parallel = 1
        exact = (
            xllamacpp.ggml_type.GGML_TYPE_F32
        )  # not the file's precision, but that of running it
        settings.cache_type_k = settings.cache_type_v = exact
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        settings.cpuparams.n_threads = threads or torch.get_num_threads()
        settings.cpuparams_batch.n_threads = threads or torch.get_num_threads()
        settings.verbosity = -1
        with silent():
            try:
                self.server = xllamacpp.Server(settings)
            except RuntimeError as error:
                raise UserError(
                    f'{key}: llama.cpp refuses the file: {first_line(error)}'
                ) from error

    def complete(self, prompt: str | Sequence[int], tokens: int, **more: Any) -> dict[str, Any]:
        """The greedy continuation of a prompt.

        Args:
            prompt: A text, which the file's tokenizer splits, or tokens.
            tokens: How many to add at most.
            more: Entries of llama.cpp's request.

        Returns:
            llama.cpp's answer: the text under ``choices``, speeds under ``timings``.
        """
        request = dict(prompt=prompt, max_tokens=tokens, temperature=0, top_k=1, **more)
        with silent():
            return self.server.handle_completions(request)

    def log_probabilities(self, tokens: Sequence[int], first: int = 1) -> list[float]:
        """Log-probabilities, in nats, of the tokens from ``first`` on, each after those before it.

        Each token is chosen by force, and llama.cpp tells how probable it was; what it has computed for
        the tokens before is kept from one to the next.
        """
        return [self._log_probability(tokens[:i], tokens[i]) for i in range(first, len(tokens))]

    def _log_probability(self, before: Sequence[int], token: int) -> float:
        found = self._chosen(before, token, 1)
        if found is not None:
            return found['logprob']
        # llama.cpp says nothing of a token that is part of a character: it is among all others, beside one
        # that is whole.
        for other in dict.fromkeys(before):
            found = self._chosen(before, other, 2**31 - 1)
            if found is not None:
                return next(x['logprob'] for x in found['top_logprobs'] if x['id'] == token)
        raise RuntimeError(f'llama.cpp does not say how probable the token {token} is')

    def _chosen(self, before: Sequence[int], token: int, best: int) -> dict[str, Any] | None:
        """What llama.cpp says of a token chosen by force, and of the ``best`` likeliest; None: nothing."""
        answer = self.complete(before, 1, logprobs=best, logit_bias=[[token, CERTAIN]])
        entries = (answer['choices'][0].get('logprobs') or {}).get('content')
        return entries[0] if entries and entries[0]['id'] == token else None


@contextmanager
def silent() -> Iterator[None]:
    """Without what llama.cpp itself says on standard error."""
    with open(os.devnull, 'w') as nowhere:
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)

"""GGUF files in the place of checkpoints, run by llama.cpp."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.common.registry import ENGINE_FILES

from ..gguf_header import read_header
from ..llama_cpp import LlamaCpp, is_installed

#: Tokens that a context has beside those of a text.
SPARE = 8
#: Tensors that hold tables, no weights.
TABLES = ('rope_freqs.weight', 'rope_factors_long.weight', 'rope_factors_short.weight')


@ENGINE_FILES.register_module(name='.gguf')
class GgufNetwork(nn.Module):
    """A language model in a GGUF file, as a module without weights of its own.

    Args:
        path: The file.
        threads: CPU threads; None: as many as PyTorch has.

    Attributes:
        params: Numbers in the file's weights.
        weight_bytes: Their size, with what fills the gaps between them.
        config: The config of the model whose place it takes.

    Raises:
        UserError: llama.cpp isn't installed, or the file is no GGUF file.
    """

    structure = 'gguf'

    def __init__(self, path: str | os.PathLike, threads: int | None = None):
        super().__init__()
        if not is_installed():
            raise UserError(
                f'checkpoint {path} needs llama.cpp; install it with pip install -e ".[llamacpp]"'
            )
        self.path, self.threads, self.config = path, threads, None
        header = read_header(path)
        tensors = header.tensors
        if 'token_embd.weight' not in tensors:
            raise UserError(
                f'checkpoint {path} holds no language model: it has no token_embd.weight'
            )
        self.params = sum(info.count for name, info in tensors.items() if name not in TABLES)
        self.weight_bytes = header.data_bytes
        self.embedding = list(tensors['token_embd.weight'].shape)
        self.running: LlamaCpp | None = None
        # Says on which device it is, and counts nothing.
        self.anchor = nn.Parameter(torch.zeros(0), requires_grad=False)

    def enter(self, model: nn.Module) -> str | None:
        """Take the place of a model's network; why it can't, None if it did."""
        self.config = model.lm.config
        wanted = [self.config.hidden_size, self.config.vocab_size]
        model.use_network(self)
        if self.embedding == wanted:
            return None
        return 'its embedding has width {} and {} tokens, where the model has {} and {}'.format(
            *self.embedding, *wanted
        )

    def of_context(self, tokens: int) -> LlamaCpp:
        """The file in llama.cpp, for texts of so many tokens."""
        if self.running is None or self.running.context < tokens:
            self.running = None  # before the next takes memory
            self.running = LlamaCpp(self.path, f'checkpoint {self.path}', tokens, self.threads)
        return self.running

    def forward(self, inputs: Tensor) -> Tensor:
        """Have llama.cpp read windows of tokens, anew each time; for timing.

        Args:
            inputs: ``(N, L)`` token ids.

        Returns:
            Log-probabilities of the most likely next tokens, ``(N,)``.
        """
        running = self.of_context(inputs.shape[1] + SPARE)
        answers = [
            running.complete(window, 1, logprobs=1, cache_prompt=False)
            for window in inputs.tolist()
        ]
        return torch.tensor([best_of(answer) for answer in answers])

    def window_nll(self, inputs: Tensor, scored: Sequence[int]) -> list[dict[str, Any]]:
        """Summed cross entropy of the last tokens of windows.

        Args:
            inputs: ``(N, L)`` token ids.
            scored: How many tokens at the end of each window count.

        Returns:
            One ``dict(nll=float, tokens=int)`` per window, in nats.
        """
        found = []
        for window, count in zip(inputs.tolist(), scored, strict=True):
            first = max(len(window) - count, 1)
            running = self.of_context(len(window) + SPARE)
            found.append(
                dict(nll=-sum(running.log_probabilities(window, first)), tokens=len(window) - first)
            )
        return found

    def run(self, inputs: Tensor, scored: Sequence[int], mode: str) -> Any:
        """What ``HFCausalLM.forward`` gives in the modes 'tensor' and 'predict'."""
        if mode == 'tensor':
            return self(inputs)
        if mode == 'predict':
            return self.window_nll(inputs, scored)
        raise ValueError(
            f"mode={mode!r} is not one that llama.cpp can run; 'tensor' and 'predict' are"
        )

    def written(self, prompt: str, tokens: int) -> str:
        """What llama.cpp adds to a text, greedily, split by the file's own tokenizer."""
        running = self.of_context(len(prompt) + tokens + SPARE)  # a token has a letter at least
        return running.complete(prompt, tokens)['choices'][0]['text']

    def tokens_per_second(self, prompt: Sequence[int], tokens: int) -> float:
        """How fast llama.cpp goes on with a prompt for so many tokens, by its own clock."""
        running = self.of_context(len(prompt) + tokens + SPARE)
        answer = running.complete(list(prompt), tokens, ignore_eos=True, cache_prompt=False)
        return float(answer['timings']['predicted_per_second'])

    def __deepcopy__(self, memo: dict) -> 'GgufNetwork':
        """Itself: a running model can't be copied, and nothing changes it."""
        return self


def best_of(answer: dict[str, Any]) -> float:
    """The log-probability of the token that llama.cpp has added; 0 where it says none."""
    entries = (answer['choices'][0].get('logprobs') or {}).get('content')
    return float(entries[0]['logprob']) if entries else 0.0

"""Whether llama.cpp computes what PyTorch does: the same file, a few tokens, probabilities side by side."""

from pathlib import Path

import torch
from transformers import PreTrainedModel

from projects.prune_plugin.common.errors import UserError

from ..llama_cpp import LlamaCpp, is_installed
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
    if not is_installed():
        return 'not run in llama.cpp: install xllamacpp to have it checked'
    ids = load_tokenizer(source)(PROBE, return_tensors='pt').input_ids
    with torch.no_grad():
        logits = lm(input_ids=ids.to(lm.device), use_cache=False).logits[0, -1]
    expected = logits.float().log_softmax(-1).cpu()
    answer = LlamaCpp(path, FLAG).complete(PROBE, 1, logprobs=10)
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

"""Text that a model writes, and how fast."""

import time

import torch

from .causal_lm import HFCausalLM

#: Tokens of the prompt and of what is written when the speed is measured.
PROMPT, WRITTEN = 8, 64


@torch.no_grad()
def generate_text(model: HFCausalLM, tokenizer, prompt: str, max_new_tokens: int = 40) -> str:
    """Let a model go on with a text, always taking the likeliest token.

    Args:
        model: The model, pruned or not.
        tokenizer: Its tokenizer; a GGUF file brings its own.
        prompt: The beginning.
        max_new_tokens: How much to add at most.

    Returns:
        What was added, without special tokens.
    """
    if model.engine is not None:
        return model.engine.written(prompt, max_new_tokens)
    tokens = tokenizer(prompt, return_tensors='pt', add_special_tokens=False)
    tokens = {name: tokens[name].to(model.lm.device) for name in ('input_ids', 'attention_mask')}
    training = model.training
    model.eval()
    written = model.lm.generate(
        **tokens,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
    )
    model.train(training)
    return tokenizer.decode(written[0, tokens['input_ids'].shape[1] :], skip_special_tokens=True)


@torch.no_grad()
def writing_speed(model: HFCausalLM) -> float | None:
    """Tokens per second that a model writes one after the other, greedily, after a prompt of eight tokens.

    The time for the prompt doesn't count. It is measured in the engine that runs the model.

    Args:
        model: The model, pruned or not, in PyTorch or in llama.cpp.

    Returns:
        The speed; None if the model takes too short texts.
    """
    count = min(WRITTEN, (model.max_window or PROMPT + WRITTEN) - PROMPT)
    if count < 2:
        return None
    prompt = torch.ones(1, PROMPT, dtype=torch.long)
    if model.engine is not None:
        return model.engine.tokens_per_second(prompt[0].tolist(), count)
    prompt = prompt.to(model.lm.device)

    def seconds(tokens: int) -> float:
        start = time.perf_counter()
        model.lm.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, pad_token_id=0,
            min_new_tokens=tokens, max_new_tokens=tokens,
        )  # fmt: skip
        return time.perf_counter() - start

    training = model.training
    model.eval()
    seconds(1)  # to warm up
    first, all_ = seconds(1), seconds(count)
    model.train(training)
    return (count - 1) / max(all_ - first, 1e-9)

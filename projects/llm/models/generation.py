"""Text that a model writes."""

import torch

from .causal_lm import HFCausalLM


@torch.no_grad()
def generate_text(model: HFCausalLM, tokenizer, prompt: str, max_new_tokens: int = 40) -> str:
    """Let a model go on with a text, always taking the likeliest token.

    Args:
        model: The model, pruned or not.
        tokenizer: Its tokenizer.
        prompt: The beginning.
        max_new_tokens: How much to add at most.

    Returns:
        What was added, without special tokens.
    """
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

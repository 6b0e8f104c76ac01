"""tools/generate.py on a tiny model."""

import pytest
import torch

pytest.importorskip('transformers')

CONFIG = """
custom_imports = dict(imports=['projects.prune_plugin', 'projects.llm'], allow_failed_imports=False)
model = dict(type='HFCausalLM', path={path!r})
"""


@pytest.fixture
def folder(tmp_path):
    """A tiny Llama whose tokens are words, written by plain transformers."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(['<unk>', '</s>', *'a b c d e f g h'.split()])}
    made = Tokenizer(models.WordLevel(words, unk_token='<unk>'))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=10, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                    num_attention_heads=2, num_key_value_heads=1, bos_token_id=1, eos_token_id=1)
    )  # fmt: skip
    path = tmp_path / 'model'
    model.save_pretrained(path)
    PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token='<unk>', eos_token='</s>'
    ).save_pretrained(path)
    return path


def likeliest(state: dict, folder, prompt: list[int], count: int) -> str:
    """Greedy decoding with plain transformers, without a cache."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    model.load_state_dict(state)
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            token = int(model(torch.tensor([tokens])).logits[0, -1].argmax())
            if token == 1:
                break
            tokens.append(token)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer.decode(tokens[len(prompt) :], skip_special_tokens=True)


def test_own_weights_and_a_checkpoint(tmp_path, call_tool, folder):
    from transformers import AutoModelForCausalLM

    config = tmp_path / 'tiny.py'
    config.write_text(CONFIG.format(path=str(folder)))
    state = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    other = {name: torch.roll(weight, 1, 0) for name, weight in state.items()}
    checkpoint = tmp_path / 'other.pth'
    torch.save(
        dict(state_dict={f'lm.{name}': weight for name, weight in other.items()}), checkpoint
    )
    words = ('--prompt', 'a b c', '--max-new-tokens', '5')
    for weights, arguments in ((state, ()), (other, (str(checkpoint),))):
        ended = call_tool('generate', config, *arguments, *words)
        expected = likeliest(weights, folder, [2, 3, 4], 5)
        assert ended.code == 0 and f'a b c{expected}' in ended.out

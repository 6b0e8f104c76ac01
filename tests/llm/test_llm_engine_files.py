"""GGUF files in the place of checkpoints: perplexity, size and speed in llama.cpp."""

import importlib.util
from pathlib import Path

import pytest
import torch
from gguf_cases import COMMON, UNEVEN, causal_lm, in_llama_cpp
from mmengine.config import Config

from projects.llm.gguf_export import save_gguf
from projects.llm.llama_cpp import LlamaCpp
from projects.llm.models import generate_text, gguf_network
from projects.prune_plugin import UserError
from projects.prune_plugin.checkpoints.engines.files import is_engine_file, load_engine
from projects.prune_plugin.common.model_interface import tokens_per_second_of
from projects.prune_plugin.evaluation.settings import ProfileSettings
from projects.prune_plugin.workflows.compare import compare

#: Part of a character: llama.cpp doesn't say its probability by itself.
FRAGMENT = 25792


def config(**architecture) -> Config:
    architecture = {'model_type': 'llama', **COMMON, **architecture}
    return Config(dict(model=dict(type='HFCausalLM', architecture=architecture, window=24)))


@pytest.fixture(scope='module')
def slim(tmp_path_factory, gguf_source):
    """A slim model of uneven layers, its file, and windows of tokens."""
    lm, path = causal_lm(prune=UNEVEN), tmp_path_factory.mktemp('gguf') / 'slim.gguf'
    save_gguf(lm, path, 'f32', gguf_source)
    tokens = torch.randint(3, 49000, (2, 24), generator=torch.Generator().manual_seed(1))
    tokens[0, 20] = FRAGMENT
    return lm, path, tokens


def expected(lm, tokens) -> torch.Tensor:
    """Log-probabilities in nats of all tokens but the first, (N, L - 1)."""
    with torch.no_grad():
        all_ = lm(input_ids=tokens).logits.log_softmax(-1)
    return all_[:, :-1].gather(2, tokens[:, 1:, None])[..., 0]


@in_llama_cpp
def test_log_probabilities_are_pytorch_s(slim):
    lm, path, tokens = slim
    found = LlamaCpp(path, 'a').log_probabilities(tokens[0].tolist())
    torch.testing.assert_close(torch.tensor(found), expected(lm, tokens)[0], rtol=0, atol=2e-4)


@in_llama_cpp
def test_a_file_in_the_place_of_a_checkpoint(slim):
    lm, path, tokens = slim
    loaded = load_engine(config(), path)
    wanted = -expected(lm, tokens)
    samples = loaded.model(tokens, torch.tensor([23, 5]), mode='predict')
    assert [sample['tokens'] for sample in samples] == [23, 5]
    assert samples[0]['nll'] == pytest.approx(float(wanted[0].sum()), rel=1e-4)
    assert samples[1]['nll'] == pytest.approx(float(wanted[1, -5:].sum()), rel=1e-4)
    (first, second) = loaded.model(tokens, mode='predict')
    assert second['tokens'] == 23 and second['nll'] == pytest.approx(
        float(wanted[1].sum()), rel=1e-4
    )
    assert loaded.model(tokens).shape == (2,)
    assert tokens_per_second_of(loaded.model) > 0
    assert len(generate_text(loaded.model, None, 'The cat', 3)) > 0
    assert loaded.model.evaluators == {} and loaded.model.weights_source is None


@in_llama_cpp
def test_beside_checkpoints_in_one_table(slim, tmp_path):
    _, path, _ = slim
    dense = str(tmp_path / 'dense.pth')
    wrapped = {f'lm.{name}': x for name, x in causal_lm().state_dict().items()}
    torch.save(dict(state_dict=wrapped, meta={}), dense)
    settings = ProfileSettings(batch_size=1, seconds=0.0)
    report = compare(config(), [dense, str(path)], settings, evaluate=False)
    first, second = report['models']
    assert (first['structure'], second['structure']) == ('dense', 'gguf')
    assert second['params'] < first['params'] and second['flops'] is None
    assert second['file_bytes'] == path.stat().st_size
    for row in (first, second):
        assert row['latency_ms'] > 0 and row['tokens_per_s'] > 0


@in_llama_cpp
@pytest.mark.parametrize(
    ('architecture', 'said'),
    [
        (dict(hidden_size=32), 'width 64 and 49152 tokens, where the model has 32 and 49152'),
        (dict(vocab_size=100), 'width 64 and 49152 tokens, where the model has 64 and 100'),
    ],
)
def test_files_of_other_models_are_refused(slim, architecture, said):
    with pytest.raises(UserError, match=f'belongs to another model than config .*{said}'):
        load_engine(config(**architecture), slim[1])


def test_parameters_and_their_size(tmp_path, monkeypatch):
    """Of files whose tensors fill whole blocks: nothing lies between them."""
    monkeypatch.setattr(gguf_network, 'is_installed', lambda: True)
    lm = causal_lm()
    count = sum(p.numel() for p in lm.parameters())
    for kind, size in (('f32', 4), ('q8_0', 34 / 32)):
        save_gguf(lm, tmp_path / 'a.gguf', kind)
        network = gguf_network.GgufNetwork(tmp_path / 'a.gguf')
        matrices = sum(p.numel() for p in lm.parameters() if p.dim() > 1)
        assert network.params == count
        assert network.weight_bytes == pytest.approx(
            size * matrices + 4 * (count - matrices), abs=64
        )


def test_what_is_no_file_of_a_language_model_is_refused(tmp_path, monkeypatch):
    path = tmp_path / 'a.gguf'
    path.write_bytes(b'GGUF' + b'\xff' * 60)
    assert is_engine_file(path) and not is_engine_file(tmp_path / 'a.pth')
    monkeypatch.setattr(gguf_network, 'is_installed', lambda: False)
    with pytest.raises(UserError, match=r'a.gguf needs llama.cpp; .* -e "\.\[llamacpp\]"'):
        load_engine(config(), path)
    monkeypatch.setattr(gguf_network, 'is_installed', lambda: True)
    with pytest.raises(UserError, match='a.gguf is no GGUF file: '):
        load_engine(config(), path)
    save_gguf(causal_lm(), tmp_path / 'b.gguf', 'f16')
    whole = (tmp_path / 'b.gguf').read_bytes()
    for length in (3, 20, 900, 9000, len(whole) // 2):
        (tmp_path / 'b.gguf').write_bytes(whole[:length])
        with pytest.raises(UserError, match='b.gguf is no GGUF file: it (ends|begins)'):
            load_engine(config(), tmp_path / 'b.gguf')


def test_a_model_says_which_files_it_takes(tmp_path):
    with pytest.raises(
        UserError, match=r'a HFCausalLM cannot be evaluated from a \.onnx file; give'
    ):
        load_engine(config(), tmp_path / 'a.onnx')
    if importlib.util.find_spec('timm'):
        import projects.vit  # noqa: F401

        cfg = Config(dict(model=dict(type='TimmClassifier', arch='resnet18', num_classes=2)))
        with pytest.raises(UserError, match=r'TimmClassifier cannot be evaluated from a \.gguf'):
            load_engine(cfg, Path('a.gguf'))

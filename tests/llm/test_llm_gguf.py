"""``--save-gguf``: what is in the file, what is refused, and what llama.cpp makes of it."""

import gguf
import numpy as np
import pytest
import torch
from gguf_cases import HALF, LLAMA3, SUBLAYERS, UNEVEN, causal_lm, in_llama_cpp

from projects.llm.gguf_export import check_gguf, save_gguf, writing
from projects.prune_plugin import UserError


def value(reader: gguf.GGUFReader, key: str):
    return reader.fields[key].contents()


def tensors_of(path) -> dict[str, np.ndarray]:
    """Names and numbers, rows first."""
    return {
        t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors
    }


def test_an_even_model_is_a_llama_with_its_numbers(tmp_path):
    lm = causal_lm(tie_word_embeddings=True)
    save_gguf(lm, tmp_path / 'a.gguf', 'f32')
    reader, tensors = gguf.GGUFReader(tmp_path / 'a.gguf'), tensors_of(tmp_path / 'a.gguf')
    assert value(reader, 'general.architecture') == 'llama'
    assert value(reader, 'llama.attention.head_count') == 4
    assert value(reader, 'llama.attention.head_count_kv') == 2
    assert value(reader, 'llama.feed_forward_length') == 96
    assert value(reader, 'llama.block_count') == 3
    assert 'output.weight' not in tensors  # tied
    assert np.array_equal(
        tensors['token_embd.weight'], lm.model.embed_tokens.weight.detach().numpy()
    )
    # Halves of a head become neighbours.
    q = lm.model.layers[1].self_attn.q_proj.weight.detach().view(4, 2, 8, 64)
    found = torch.from_numpy(tensors['blk.1.attn_q.weight'].copy()).view(4, 8, 2, 64)
    for half in (0, 1):
        assert torch.equal(found[:, :, half], q[:, half])
    assert len(tensors) == len(lm.state_dict()) - 1


def test_uneven_layers_are_lists_of_widths(tmp_path):
    lm = causal_lm(prune=UNEVEN)
    save_gguf(lm, tmp_path / 'a.gguf', 'f16')
    reader = gguf.GGUFReader(tmp_path / 'a.gguf')
    assert value(reader, 'general.architecture') == 'deci'
    layers = lm.model.layers
    assert value(reader, 'deci.feed_forward_length') == [
        x.mlp.down_proj.in_features for x in layers
    ]
    heads = [x.self_attn.o_proj.in_features // 16 for x in layers]
    assert value(reader, 'deci.attention.head_count') == heads
    assert value(reader, 'deci.attention.head_count_kv') == [count // 2 for count in heads]
    assert len(set(heads)) > 1 or len(set(value(reader, 'deci.feed_forward_length'))) > 1


def test_norms_of_gemma_are_stored_with_their_one(tmp_path):
    lm = causal_lm('Gemma')
    save_gguf(lm, tmp_path / 'a.gguf', 'f32')
    found = tensors_of(tmp_path / 'a.gguf')['output_norm.weight']
    assert np.allclose(found, lm.model.norm.weight.detach().numpy() + 1)


@pytest.mark.parametrize(
    ('lm', 'kind', 'said'),
    [
        (dict(prune=UNEVEN, kind='Qwen3'), 'f16', "which llama.cpp's qwen3 cannot say"),
        (dict(prune={**UNEVEN, 'round_to': 1}), 'q8_0', 'rows of a multiple of 32 numbers'),
        (dict(rope_parameters=dict(rope_type='yarn', factor=2.0, rope_theta=1e4)), 'f16', "'yarn'"),
        (dict(kind='Gemma2', query_pre_attn_scalar=99), 'f16', 'query_pre_attn_scalar is 99'),
    ],
)
def test_what_a_file_cannot_hold_is_refused_and_nothing_left(tmp_path, lm, kind, said):
    with pytest.raises(UserError, match=said):
        save_gguf(causal_lm(**lm), tmp_path / 'a.gguf', kind)
    assert not list(tmp_path.iterdir())


def test_refused_before_any_work():
    with pytest.raises(UserError, match='opt is not among the architectures'):
        check_gguf(dict(architecture=dict(model_type='opt')), 'f16')
    with pytest.raises(UserError, match='--gguf-type f8 is unknown; valid are f32'):
        check_gguf(dict(architecture=dict(model_type='llama')), 'f8')
    check_gguf(dict(architecture=dict(model_type='qwen3')), 'q4_0')


@in_llama_cpp
@pytest.mark.parametrize(
    ('lm', 'kind'),
    [
        (dict(prune=UNEVEN), 'f32'),
        (dict(prune=HALF, rope_parameters=LLAMA3), 'f16'),
        (dict(kind='Qwen2', prune=UNEVEN), 'f16'),
        (dict(kind='Qwen3', prune=HALF), 'bf16'),
        (dict(kind='Gemma2', query_pre_attn_scalar=16), 'f16'),
        (dict(kind='Gemma3', query_pre_attn_scalar=16, num_hidden_layers=6), 'f16'),
        (dict(prune=SUBLAYERS), 'f16'),
        (dict(), 'q8_0'),
    ],
)  # fmt: skip
def test_llama_cpp_gives_the_same_probabilities(tmp_path, gguf_source, lm, kind, monkeypatch):
    said = []
    monkeypatch.setattr(writing, 'print_log', lambda text, *_: said.append(text))
    save_gguf(causal_lm(**lm), tmp_path / 'a.gguf', kind, gguf_source)
    assert 'most likely next tokens are' in said[-1], said


@in_llama_cpp
def test_a_file_that_computes_something_else_is_not_kept(tmp_path, gguf_source, monkeypatch):
    monkeypatch.setattr(writing, 'interleaved', lambda tensor, heads: tensor)
    with pytest.raises(UserError, match='off those in PyTorch; the file is not kept'):
        save_gguf(causal_lm(), tmp_path / 'a.gguf', 'f32', gguf_source)
    assert not list(tmp_path.iterdir())

"""``HFCausalLM``: building, loading, its forward modes, and what it refuses."""

import json
import shutil
import time

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from tiny_causal import ARCHITECTURES, LLAMA
from transformers import AutoModelForCausalLM

from projects.llm.models import HFCausalLM, generate_text, load_tokenizer
from projects.llm.models import sources as sources_module
from projects.prune_plugin.checkpoints.checkpoint_file import load_weights
from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.evaluation.example_inputs import example_input
from projects.prune_plugin.evaluation.flops import module_flops

TOKENS = torch.randint(2, 96, (3, 12), generator=torch.Generator().manual_seed(0))


def build(**kwargs) -> HFCausalLM:
    return MODELS.build(dict(type='HFCausalLM', **kwargs)).eval()


@pytest.mark.parametrize('family', ARCHITECTURES)
def test_forward_modes(family):
    model = build(architecture=ARCHITECTURES[family])
    with torch.no_grad():
        logits = model(TOKENS)
        expected = model.lm(input_ids=TOKENS, labels=TOKENS).loss
        torch.testing.assert_close(model(TOKENS, mode='loss')['loss'], expected)
        predictions = model(TOKENS, torch.tensor([11, 4, 1]), mode='predict')
    assert logits.shape == (3, 12, 96)
    assert [p['tokens'] for p in predictions] == [11, 4, 1]
    for row, ids, found in zip(logits, TOKENS, predictions, strict=True):
        nll = F.nll_loss(row[:-1].double().log_softmax(-1), ids[1:], reduction='none')
        assert found['nll'] == pytest.approx(float(nll[-found['tokens'] :].sum()), rel=1e-6)
    with pytest.raises(ValueError, match='unknown'):
        model(TOKENS, mode='predictions')


@pytest.mark.parametrize('family', ARCHITECTURES)
def test_weights_survive_a_checkpoint(family, tmp_path):
    torch.manual_seed(1)
    first = build(architecture=ARCHITECTURES[family])
    second = build(architecture=ARCHITECTURES[family])
    assert all(name.startswith('lm.') for name in first.state_dict())
    load_weights(second, {'state_dict': first.state_dict()}, 'a.pth')
    assert torch.equal(first(TOKENS), second(TOKENS))
    embedding = second.lm.get_input_embeddings().weight
    tied = ARCHITECTURES[family].get('tie_word_embeddings', family == 'opt')
    assert (second.lm.get_output_embeddings().weight is embedding) == tied


def test_a_folder_gives_what_transformers_gives(hf_folder):
    model = build(path=str(hf_folder))
    before = dict(model.named_parameters())
    model.init_weights()
    plain = AutoModelForCausalLM.from_pretrained(hf_folder)
    assert torch.equal(model(TOKENS), plain(input_ids=TOKENS).logits)
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())  # the optimizer's
    assert model.lm.lm_head.weight is model.lm.model.embed_tokens.weight
    assert model.lm.generation_config.max_new_tokens == 7
    with torch.no_grad():
        model.lm.model.norm.weight.zero_()
    model.init_weights()  # once is enough
    assert not model.lm.model.norm.weight.any()


def test_building_reads_no_weights(hf_folder, tmp_path):
    bare = tmp_path / 'bare'
    bare.mkdir()
    shutil.copy(hf_folder / 'config.json', bare)
    model = build(path=str(bare))
    assert model.lm.lm_head.weight is model.lm.model.embed_tokens.weight
    with pytest.raises(UserError, match='has no weights: neither model'):
        model.init_weights()


def test_architecture_and_path_together(hf_folder):
    model = build(path=str(hf_folder), architecture=LLAMA)
    model.init_weights()
    plain = AutoModelForCausalLM.from_pretrained(hf_folder)
    assert torch.equal(model(TOKENS), plain(input_ids=TOKENS).logits)
    other = build(path=str(hf_folder), architecture=dict(LLAMA, intermediate_size=64))
    with pytest.raises(
        UserError, match=r'another shape of 6 tensors .*down_proj.weight \(32, 48\)'
    ):
        other.init_weights()
    deeper = build(path=str(hf_folder), architecture=dict(LLAMA, num_hidden_layers=3))
    with pytest.raises(UserError, match='lacks 9 tensors of the model: .*layers.2'):
        deeper.init_weights()


@pytest.mark.parametrize('kind', ['safetensors', 'bin'])
def test_weights_that_are_not_finite_are_refused(hf_folder, tmp_path, kind):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / 'broken'
    shutil.copytree(hf_folder, folder)
    weights = load_file(folder / 'model.safetensors')
    weights['model.layers.1.mlp.up_proj.weight'][3, 4] = float('nan')
    if kind == 'safetensors':
        save_file(weights, folder / 'model.safetensors', metadata={'format': 'pt'})
    else:
        (folder / 'model.safetensors').unlink()
        torch.save(weights, folder / 'pytorch_model.bin')
    with pytest.raises(
        UserError, match=r'^model.path=.*layers.1.mlp.up_proj.weight holds NaN or inf'
    ):
        build(path=str(folder)).init_weights()
    model = build(architecture=LLAMA)
    state = {f'lm.{name}': tensor for name, tensor in weights.items()}
    state.setdefault('lm.lm_head.weight', state['lm.model.embed_tokens.weight'])
    with pytest.raises(UserError, match='checkpoint a.pth: lm.model.layers.1.mlp.up_proj.weight'):
        load_weights(model, {'state_dict': state}, 'a.pth')


def test_damaged_weights_are_refused(hf_folder, tmp_path):
    folder = tmp_path / 'broken'
    shutil.copytree(hf_folder, folder)
    content = (folder / 'model.safetensors').read_bytes()
    (folder / 'model.safetensors').write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match='its weights cannot be read'):
        build(path=str(folder)).init_weights()
    (folder / 'model.safetensors').unlink()

    class Bomb:
        def __reduce__(self):
            return exec, ('raise SystemExit(66)',)

    torch.save({'model.norm.weight': Bomb()}, folder / 'pytorch_model.bin')
    with pytest.raises(UserError, match='its weights cannot be read'):
        build(path=str(folder)).init_weights()


def config_without(key: str, hf_folder, folder, **changed):
    folder.mkdir()
    content = json.loads((hf_folder / 'config.json').read_text()) | changed
    content.pop(key, None)
    (folder / 'config.json').write_text(json.dumps(content))
    return str(folder)


def test_what_building_refuses(hf_folder, tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'a.txt').touch()
    unknown = config_without('', hf_folder, tmp_path / 'a', model_type='llamba')
    own_code = config_without(
        '', hf_folder, tmp_path / 'b', auto_map={'AutoModelForCausalLM': 'm.M'}
    )
    missing = config_without('model_type', hf_folder, tmp_path / 'c')
    cases = {
        'model.path is missing': {},
        "'nowhere/at/all' does not exist": dict(path='nowhere/at/all'),
        'does not exist; a folder': dict(path='./x.gguf'),
        'has no config.json': dict(path=str(tmp_path / 'empty')),
        'is a file, but no .gguf': dict(path=str(tmp_path / 'a.txt')),
        "model_type='llamba' is no causal": dict(path=unknown),
        'model_type=None is no causal': dict(path=missing),
        'trust_remote_code=True': dict(path=own_code),
        "no package 'no_such'": dict(path='package://no_such/a.gguf'),
        "model_type='bert_what'": dict(architecture=dict(model_type='bert_what')),
        'hidden_size': dict(architecture=dict(LLAMA, hidden_size=30)),
        'dtype=.int8': dict(architecture=LLAMA, dtype='int8'),
        'windows of 65 tokens are longer than the 64': dict(architecture=LLAMA, window=65),
        'window=1 must be': dict(architecture=LLAMA, window=1),
    }
    for message, kwargs in cases.items():
        with pytest.raises(UserError, match=message):
            build(**kwargs)


def test_windows_beyond_the_model_and_foreign_tokens_are_refused():
    model = build(architecture=LLAMA)
    with pytest.raises(UserError, match='windows of 65 tokens are longer than the 64'):
        model(torch.zeros(1, 65, dtype=torch.long))
    batch = dict(inputs=torch.tensor([[3, 96]]), scored=torch.tensor([1]))
    with pytest.raises(UserError, match="token 96.* dataset.tokenizer must be the model's own"):
        model.test_step(batch)


def test_no_network_is_said_at_once(monkeypatch):
    import huggingface_hub

    def refuse(self, *args, **kwargs):
        assert kwargs['timeout'] == sources_module.HUB_TIMEOUT
        raise ConnectionError('Name or service not known')

    monkeypatch.setattr(huggingface_hub.HfApi, 'model_info', refuse)
    start = time.monotonic()
    for load in (lambda name: build(path=name), load_tokenizer):
        with pytest.raises(UserError, match="'nobody/nothing' is no folder here and cannot be had"):
            load('nobody/nothing')
    assert time.monotonic() - start < 5


def test_the_hub_and_its_cache(hf_folder, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    fetched = []

    def snapshot(name, allow_patterns=None, local_files_only=False):
        if local_files_only and not fetched:
            raise LocalEntryNotFoundError('not cached')
        if not local_files_only:
            fetched.append(allow_patterns)
        return str(hf_folder)

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', snapshot)
    monkeypatch.setattr(huggingface_hub.HfApi, 'model_info', lambda *a, **k: None)
    model = build(path='some/llama')
    assert fetched == [sources_module.DESCRIPTION]
    model.init_weights()  # the cache has them
    assert len(fetched) == 1
    assert model.tokenizer.vocab_size == 96


def test_meta_device_holds_any_size():
    huge = dict(LLAMA, hidden_size=8192, intermediate_size=28672, num_hidden_layers=80,
                num_attention_heads=64, num_key_value_heads=8, vocab_size=128256)  # fmt: skip
    start = time.monotonic()
    with torch.device('meta'):
        model = build(architecture=dict(huge, tie_word_embeddings=False))
    assert sum(p.numel() for p in model.parameters()) == 70_553_706_496
    assert time.monotonic() - start < 10


def test_profiling_needs_no_data():
    model = build(architecture=LLAMA, window=10)
    args, kwargs = example_input(model, None)
    assert kwargs['inputs'].shape == (1, 10)
    projections = 2 * 10 * (2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48) + 32 * 96)
    attention = 2 * (2 * 2 * 10 * 10 * 32)
    flops = sum(module_flops(model, (args, kwargs)).values())
    assert abs(flops - projections - attention) / flops < 0.01  # the rotary angles too


def test_dtype():
    model = build(architecture=LLAMA, dtype='bfloat16')
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model(TOKENS, mode='predict')[0]['nll'] > 0


def test_generated_text_is_greedy(hf_folder):
    model = build(path=str(hf_folder))
    model.init_weights()
    tokenizer = model.tokenizer
    ids = tokenizer('the value of', add_special_tokens=False)['input_ids']
    start = len(ids)
    for _ in range(5):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    expected = tokenizer.decode(ids[start:], skip_special_tokens=True)
    assert generate_text(model, tokenizer, 'the value of', 5) == expected
    with pytest.raises(UserError, match='model.path is missing'):
        _ = build(architecture=LLAMA).tokenizer

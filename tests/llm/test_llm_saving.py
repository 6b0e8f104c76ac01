"""Saving Hugging Face folders: stock transformers, or its trust_remote_code, computes the same."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch

transformers = pytest.importorskip('transformers')

from projects.llm import load_slim  # noqa: E402
from projects.llm.models import HFCausalLM  # noqa: E402
from projects.llm.saved_config import describe  # noqa: E402
from projects.llm.saving import save_hf  # noqa: E402
from projects.prune_plugin import build_pruner, slim  # noqa: E402
from projects.prune_plugin.common.errors import UserError  # noqa: E402

LLAMA = dict(
    model_type='llama', vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
    num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=64,
    tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
FAMILIES = {
    'llama': LLAMA,
    'untied': {**LLAMA, 'tie_word_embeddings': False},
    'biased': {**LLAMA, 'attention_bias': True, 'mlp_bias': True},
    'qwen2': {**LLAMA, 'model_type': 'qwen2', 'use_sliding_window': True, 'max_window_layers': 1},
    'qwen3': {**LLAMA, 'model_type': 'qwen3', 'head_dim': 16},
    'mistral': {**LLAMA, 'model_type': 'mistral', 'head_dim': 8},
    'opt': dict(
        model_type='opt', vocab_size=96, hidden_size=32, ffn_dim=64, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=64, word_embed_proj_dim=32, dropout=0.0,
    ),
    'gpt_neox': dict(
        model_type='gpt_neox', vocab_size=96, hidden_size=32, intermediate_size=48,
        num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64,
        bos_token_id=1, eos_token_id=2,
    ),
}  # fmt: skip
UNIFORM = dict(allocator=dict(type='Uniform'), budget=dict(type='units', ratio=0.5))
NEURONS = dict(UNIFORM, units=[dict(type='FFNNeurons')], round_to=8)
HEADS = dict(UNIFORM, units=[dict(type='AttentionHeads')], budget=dict(type='units', ratio=0.25))
DEPTH = dict(units=[dict(type='PreNormLayers')], budget=dict(type='units', ratio=0.3))
GLOBAL = dict(criterion=dict(type='Random'), budget=dict(type='params', ratio=0.3))

TOKENS = torch.randint(3, 96, (2, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def modules_of_folders(tmp_path_factory, monkeypatch):
    """Modelling files are copied before they are run: not into the user's own cache."""
    folder = str(tmp_path_factory.mktemp('modules'))
    monkeypatch.setattr('transformers.dynamic_module_utils.HF_MODULES_CACHE', folder)
    monkeypatch.syspath_prepend(folder)
    for name in [name for name in sys.modules if name.startswith('transformers_modules')]:
        monkeypatch.delitem(sys.modules, name)


def built(family: str, prune_cfg: dict | None = None, emptied: dict | None = None):
    """A transformers model with everything random, pruned as asked; ``emptied``: layer -> part."""
    lm = HFCausalLM(architecture=FAMILIES[family]).lm.eval()
    with torch.no_grad():
        for parameter in lm.parameters():  # biases and norms too
            parameter.add_(torch.randn_like(parameter) * 0.05)
    if prune_cfg:
        state = build_pruner(dict(min_keep=0, **prune_cfg)).plan(lm).state
        for name in emptied or ():
            state.kept[name] = torch.empty(0, dtype=torch.long)
        slim(lm, state)
    return lm


@torch.no_grad()
def logits(lm) -> torch.Tensor:
    return lm(TOKENS, use_cache=False).logits


def generated(lm, use_cache: bool) -> list[int]:
    return lm.generate(
        TOKENS[:1], attention_mask=torch.ones_like(TOKENS[:1]), max_new_tokens=8, min_new_tokens=8,
        do_sample=False, use_cache=use_cache, pad_token_id=0,
    )[0].tolist()  # fmt: skip


CASES = [
    *((family, None, True) for family in FAMILIES),
    *((family, NEURONS, True) for family in FAMILIES),
    *((family, DEPTH, True) for family in FAMILIES),
    *((family, GLOBAL, False) for family in FAMILIES),
    # Four KV groups to three: six heads don't divide a width of 64, which only LlamaConfig minds.
    *((family, HEADS, True) for family in ('llama', 'untied', 'qwen2', 'qwen3', 'mistral')),
    *((family, HEADS, False) for family in ('biased', 'opt', 'gpt_neox')),
]


@pytest.mark.parametrize('family, prune_cfg, plain', CASES)
def test_the_folder_computes_the_same(family, prune_cfg, plain, tmp_path):
    lm = built(family, prune_cfg)
    assert save_hf(lm, tmp_path / 'saved') is plain
    ours = load_slim(tmp_path / 'saved')
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / 'saved', trust_remote_code=not plain
    )
    for other in (ours, theirs):
        assert torch.equal(logits(other), logits(lm))
        assert other.config.tie_word_embeddings == lm.config.tie_word_embeddings
        if lm.config.tie_word_embeddings:
            assert other.get_input_embeddings().weight is other.get_output_embeddings().weight
    assert generated(theirs, True) == generated(theirs, False) == generated(lm, False)
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in lm.parameters())
    assert not ours.training and not theirs.training


@pytest.mark.parametrize('family', ['llama', 'biased', 'qwen3', 'opt', 'gpt_neox'])
def test_emptied_parts_are_saved(family, tmp_path):
    """The first layer has no heads left: generation still counts its tokens."""
    layer = {'opt': 'model.decoder.layers', 'gpt_neox': 'gpt_neox.layers'}.get(
        family, 'model.layers'
    )
    heads = f'{layer}.0.' + ('attention' if family == 'gpt_neox' else 'self_attn')
    neurons = f'{layer}.1.' + ('fc1' if family == 'opt' else 'mlp')
    lm = built(family, GLOBAL, [heads, neurons])
    assert not save_hf(lm, tmp_path / 'saved')
    ours = load_slim(tmp_path / 'saved')
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / 'saved', trust_remote_code=True
    )
    assert torch.equal(logits(ours), logits(lm)) and torch.equal(logits(theirs), logits(lm))
    assert generated(theirs, True) == generated(theirs, False) == generated(ours, True)
    assert not save_hf(ours, tmp_path / 'again')
    config = json.loads((tmp_path / 'saved/config.json').read_text())
    assert config == json.loads((tmp_path / 'again/config.json').read_text())


def test_layers_that_go_take_their_entries_along(tmp_path):
    lm = built('qwen2', DEPTH)
    left = [i for i, x in enumerate(lm.model.layers) if type(x).__name__ != 'SkipLayer']
    described = describe(lm)
    assert described.layers == left and len(left) == 2
    assert described.config.layer_types == [lm.config.layer_types[i] for i in left]
    assert lm.config.num_hidden_layers == 3, "the model's own config is left alone"


def test_what_cannot_be_said_is_refused(tmp_path):
    lm = built('llama')
    lm.model.layers[0].mlp.extra = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match='mlp.extra'):
        save_hf(lm, tmp_path / 'saved')
    lm = built(
        'llama', dict(units=[dict(type='PreNormLayers')], budget=dict(type='units', ratio=0.9))
    )
    with pytest.raises(UserError, match='all its layers'):
        save_hf(lm, tmp_path / 'saved')
    assert not list(tmp_path.iterdir())


STREAM = dict(
    units=[dict(type='CoupledChannels', shared=True)], budget=dict(type='units', ratio=0.25)
)
OLMOE = dict(
    LLAMA, model_type='olmoe', num_experts=4, num_experts_per_tok=2, num_key_value_heads=8
)  # fmt: skip
GEMMA2 = dict(LLAMA, model_type='gemma2', head_dim=8)


@pytest.mark.parametrize('family, plain', [('llama', True), ('qwen2', True), ('mistral', True)])
def test_a_narrower_stream_is_a_plain_folder(family, plain, tmp_path):
    lm = built(family, STREAM)
    assert save_hf(lm, tmp_path / 'saved') is plain
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'saved').float().eval()
    assert loaded.config.hidden_size == 48
    assert type(loaded.model.norm) is type(built(family).model.norm)
    ours, theirs = logits(lm), logits(loaded)
    assert float((ours - theirs).abs().max()) < 1e-5 * float(ours.abs().max())


def test_norms_over_fewer_heads_are_rewritten(tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, 'olmoe', OLMOE)
    heads = dict(UNIFORM, include=[r'.*self_attn$'])
    lm = built('olmoe')
    slim(lm, build_pruner(heads).plan(lm, example_inputs=dict(input_ids=TOKENS)).state)
    assert 'SlimOlmoeRMSNorm' in {type(module).__name__ for module in lm.modules()}
    save_hf(lm, tmp_path / 'saved')
    loaded = load_slim(tmp_path / 'saved').eval()
    assert 'SlimOlmoeRMSNorm' not in {type(module).__name__ for module in loaded.modules()}
    assert torch.allclose(logits(loaded), logits(lm), atol=1e-5 * float(logits(lm).abs().max()))


def test_what_no_config_says_is_refused(tmp_path):
    example = dict(input_ids=TOKENS)
    # Its embeddings are multiplied by the root of the width, which the config would change.
    config = transformers.Gemma2Config(**{k: v for k, v in GEMMA2.items() if k != 'model_type'})
    lm = transformers.Gemma2ForCausalLM(config).eval()
    slim(lm, build_pruner(STREAM).plan(lm, example_inputs=example).state)
    with pytest.raises(UserError, match='computes something else'):
        save_hf(lm, tmp_path / 'saved')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('kind', ['gpt2', 'smollm3', 'falcon'])
def test_discovered_units_in_a_slim_folder(kind, tmp_path):
    torch.manual_seed(0)
    sizes = dict(
        vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, n_inner=80, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    base = transformers.AutoConfig.for_model(kind)
    config = transformers.AutoConfig.for_model(
        kind, **{k: v for k, v in sizes.items() if hasattr(base, k)}
    )
    lm = transformers.AutoModelForCausalLM.from_config(config).eval()
    slim(lm, build_pruner(GLOBAL).plan(lm, example_inputs=dict(input_ids=TOKENS)).state)
    assert not save_hf(lm, tmp_path / 'saved')
    assert torch.allclose(logits(load_slim(tmp_path / 'saved')), logits(lm), atol=1e-6)


def test_a_folder_in_use_is_refused_and_nothing_half_written_stays(tmp_path, monkeypatch):
    lm = built('llama')
    taken = tmp_path / 'taken'
    taken.mkdir()
    (taken / 'notes.txt').write_text('mine')
    with pytest.raises(UserError, match='taken already exists'):
        save_hf(lm, taken)
    empty = tmp_path / 'empty'
    empty.mkdir()
    save_hf(lm, empty)
    assert (empty / 'model.safetensors').is_file()

    class Broken:
        def save_pretrained(self, folder):
            raise OSError('disk full')

    with pytest.raises(OSError, match='disk full'):
        save_hf(lm, tmp_path / 'broken', Broken())
    assert sorted(p.name for p in tmp_path.iterdir()) == ['empty', 'taken']


def test_a_slim_folder_never_loads_with_random_layers(tmp_path):
    lm = built('llama', GLOBAL)
    save_hf(lm, tmp_path / 'saved')
    with pytest.raises(ValueError, match='custom code'):
        transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / 'saved', trust_remote_code=False
        )
    with pytest.raises(RuntimeError):
        transformers.LlamaForCausalLM.from_pretrained(tmp_path / 'saved')
    readme = (tmp_path / 'saved/README.md').read_text()
    assert 'trust_remote_code=True' in readme and 'load_slim' in readme
    assert 'projects' not in (tmp_path / 'saved/modeling_slim.py').read_text()


def test_damaged_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match='cannot be read'):
        load_slim(tmp_path)
    save_hf(built('llama', GLOBAL), tmp_path / 'saved')
    path = tmp_path / 'saved/config.json'
    config = json.loads(path.read_text())
    key = next(iter(config['slim_widths']))
    path.write_text(json.dumps({**config, 'slim_base': 'no_such'}))
    with pytest.raises(UserError, match='no_such'):
        load_slim(tmp_path / 'saved')
    config['slim_widths'][key][0] -= 1
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match='cannot be loaded'):
        load_slim(tmp_path / 'saved')
    config['num_hidden_layers'] = 4
    path.write_text(json.dumps(config))
    with pytest.raises(UserError):
        load_slim(tmp_path / 'saved')


def test_types_and_files(tmp_path):
    lm = built('llama').to(torch.bfloat16)
    lm.generation_config.max_new_tokens = 7
    save_hf(lm, tmp_path / 'saved')
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'saved')
    assert loaded.dtype == torch.bfloat16 and loaded.generation_config.max_new_tokens == 7
    config = json.loads((tmp_path / 'saved/config.json').read_text())
    assert '_name_or_path' not in config and config['dtype'] == 'bfloat16'


LOAD = """
import json, math, sys, torch, transformers
tokens, found = torch.load(sys.argv[1], weights_only=True), {}
for folder in sys.argv[2:]:
    trust = dict(trust_remote_code=folder.endswith('slim'))
    lm = transformers.AutoModelForCausalLM.from_pretrained(folder, **trust)
    text = transformers.AutoTokenizer.from_pretrained(folder, **trust).encode('two one')
    with torch.no_grad():
        found[folder] = [math.exp(lm(tokens, labels=tokens).loss), text, type(lm).__name__]
assert not any(name.startswith(('projects', 'mmengine')) for name in sys.modules)
print(json.dumps(found))
"""


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel({'[UNK]': 0, 'one': 5, 'two': 6}, unk_token='[UNK]'))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token='[UNK]')


def test_a_fresh_process_that_knows_only_transformers(tmp_path):
    zeroed = built('llama')
    with torch.no_grad():
        for layer in zeroed.model.layers:
            weight = layer.mlp.up_proj.weight
            weight.mul_(weight.abs() > weight.abs().median())
    models = dict(zeros=zeroed, uniform=built('llama', NEURONS), slim=built('llama', GLOBAL))
    for name, lm in models.items():
        assert save_hf(lm, tmp_path / name, tokenizer()) is (name != 'slim')
    torch.save(TOKENS, tmp_path / 'tokens.pt')
    folders = [str(tmp_path / name) for name in models]
    done = subprocess.run(
        [sys.executable, '-c', LOAD, tmp_path / 'tokens.pt', *folders],
        capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, 'HF_HOME': str(tmp_path / 'hf'), 'PYTHONPATH': ''},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for folder, lm in zip(folders, models.values(), strict=True):
        with torch.no_grad():
            expected = math.exp(lm(TOKENS, labels=TOKENS).loss)
        perplexity, text, _ = found[folder]
        assert f'{perplexity:.4f}' == f'{expected:.4f}' and text == [6, 5]
    assert [found[folder][2] for folder in folders[1:]] == [
        'LlamaForCausalLM',
        'SlimLlamaForCausalLM',
    ]


@pytest.mark.parametrize('trusted', [False, True])
def test_a_slim_folder_is_a_path_for_a_config(tmp_path, trusted):
    """Without trust, the folder's code isn't run: ours reads the widths."""
    lm = built('qwen2', GLOBAL)
    save_hf(lm, tmp_path / 'saved', tokenizer())
    if not trusted:
        (tmp_path / 'saved/modeling_slim.py').write_text('raise RuntimeError')
    model = HFCausalLM(path=str(tmp_path / 'saved'), trust_remote_code=trusted)
    model.init_weights()
    assert torch.equal(logits(model.eval().lm), logits(lm))
    model.save_hf(tmp_path / 'again')
    for name in ('config.json', 'model.safetensors', 'tokenizer.json'):
        one, other = (tmp_path / folder / name for folder in ('saved', 'again'))
        assert one.read_bytes() == other.read_bytes()
    assert [g.size for g in build_pruner(GLOBAL).plan(model).groups] == [
        g.size for g in build_pruner(GLOBAL).plan(lm).groups
    ]

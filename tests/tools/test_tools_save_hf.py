"""``--save-hf`` of the tools: folders that stock transformers loads, with the reported perplexity."""

import json
import math
import random

import pytest
import torch
from tool_runs import CONFIG

transformers = pytest.importorskip('transformers')

WORDS = [f'w{i}' for i in range(90)]
TINY = """
custom_imports = dict(imports=['projects.prune_plugin', 'projects.llm'])
default_scope = 'mmengine'
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='gloo'))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
model = dict(type='HFCausalLM', path={base!r}, window=16)
windows = dict(type='TokenWindows', tokenizer={base!r}, source=dict(files={text!r}), window=16)
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'), dataset=dict(windows, max_windows=16))
test_dataloader = dict(train_dataloader, sampler=dict(type='DefaultSampler', shuffle=False))
test_evaluator = dict(type='Perplexity')
test_cfg = dict()
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
prune_cfg = {prune_cfg}
"""
UNIFORM = dict(
    allocator=dict(type='Uniform'), budget=dict(type='params', ratio=0.2), round_to=8,
    units=[dict(type='FFNNeurons')], profile=dict(seconds=0.01),
)  # fmt: skip
GLOBAL = dict(criterion=dict(type='Random'), budget=dict(type='params', ratio=0.2),
              profile=dict(seconds=0.01))  # fmt: skip
WEIGHTS = dict(type='WeightPruner', budget=dict(type='weights', ratio=0.5),
               recovery=dict(epochs=1), profile=dict(seconds=0.01))  # fmt: skip


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    """A folder with a tiny dense model and its tokenizer, and a text to it."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    from projects.llm.models import HFCausalLM
    from projects.llm.saving import save_hf

    folder = tmp_path_factory.mktemp('tiny')
    inner = Tokenizer(
        models.WordLevel({'[UNK]': 0, **{w: i + 3 for i, w in enumerate(WORDS)}}, '[UNK]')
    )
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token='[UNK]')
    torch.manual_seed(3)
    model = HFCausalLM(
        architecture=dict(
            model_type='llama', vocab_size=96, hidden_size=32, intermediate_size=64,
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=64, tie_word_embeddings=True,
        )
    )  # fmt: skip
    save_hf(model.lm, folder / 'base', tokenizer)
    draw = random.Random(0)
    (folder / 'text.txt').write_text(' '.join(draw.choice(WORDS) for _ in range(600)))
    return folder


@pytest.fixture
def config(base, tmp_path):
    """``config(prune_cfg)``: a config file for the tiny model."""

    def write(prune_cfg=None, name='tiny_llm.py') -> str:
        values = dict(base=str(base / 'base'), text=str(base / 'text.txt'), prune_cfg=prune_cfg)
        (tmp_path / name).write_text(TINY.format(**values))
        return str(tmp_path / name)

    return write


def perplexity(folder, base, **kwargs) -> float:
    """By transformers alone: 16 windows of 16 tokens."""
    lm = transformers.AutoModelForCausalLM.from_pretrained(folder, **kwargs)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **kwargs)
    tokens = tokenizer((base / 'text.txt').read_text(), return_tensors='pt').input_ids[0, :256]
    windows = tokens.reshape(16, 16)
    with torch.no_grad():
        return math.exp(lm(windows, labels=windows).loss)


def test_a_uniform_model_is_saved_for_stock_transformers(call_tool, config, base, tmp_path):
    ended = call_tool('analysis_struct', config(UNIFORM), '--output-dir', tmp_path / 'out',
                      '--save-hf', tmp_path / 'hf')  # fmt: skip
    assert ended.code == 0, ended.out
    report = json.loads((tmp_path / 'out/report.json').read_text())
    expected = report['pruned']['metrics']['ppl/perplexity']
    assert perplexity(tmp_path / 'hf', base) == pytest.approx(expected, rel=1e-5)
    saved = json.loads((tmp_path / 'hf/config.json').read_text())
    assert saved['intermediate_size'] % 8 == 0 and saved['intermediate_size'] < 64
    # A checkpoint of it, converted afterwards, gives the very same files.
    ended = call_tool('test', config(), tmp_path / 'out/tiny_structured_pruned.pth', '--work-dir',
                      tmp_path / 'work', '--save-hf', tmp_path / 'again')  # fmt: skip
    assert ended.code == 0, ended.out
    for name in ('config.json', 'model.safetensors', 'tokenizer.json'):
        assert (tmp_path / 'hf' / name).read_bytes() == (tmp_path / 'again' / name).read_bytes()


def test_without_a_checkpoint_the_configs_own_weights_are_saved(call_tool, config, base, tmp_path):
    ended = call_tool(
        'test', config(), '--work-dir', tmp_path / 'work', '--save-hf', tmp_path / 'hf'
    )
    assert ended.code == 0, ended.out
    assert perplexity(tmp_path / 'hf', base) == pytest.approx(perplexity(base / 'base', base))


def test_a_trained_sparse_model_is_saved_with_its_zeros(call_tool, config, base, tmp_path):
    ended = call_tool('analysis_struct', config(WEIGHTS), '--output-dir', tmp_path / 'out',
                      '--fine-tune', '--save-hf', tmp_path / 'hf')  # fmt: skip
    assert ended.code == 0, ended.out
    report = json.loads((tmp_path / 'out/report.json').read_text())
    expected = report['recovered']['metrics']['ppl/perplexity']
    assert expected != report['pruned']['metrics']['ppl/perplexity']
    assert perplexity(tmp_path / 'hf', base) == pytest.approx(expected, rel=1e-5)
    lm = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'hf')
    for layer in lm.model.layers:
        assert (layer.mlp.up_proj.weight == 0).double().mean() == pytest.approx(0.5, abs=0.01)


def test_the_last_of_several_rounds_is_saved(call_tool, config, base, tmp_path):
    prune_cfg = {**WEIGHTS, 'schedule': dict(type='Geometric', share=0.3)}
    ended = call_tool('analysis_struct', config(prune_cfg), '--output-dir', tmp_path / 'out',
                      '--fine-tune', '--save-hf', tmp_path / 'hf')  # fmt: skip
    assert ended.code == 0, ended.out
    report = json.loads((tmp_path / 'out/report.json').read_text())
    expected = report['recovered']['metrics']['ppl/perplexity']
    assert perplexity(tmp_path / 'hf', base) == pytest.approx(expected, rel=1e-5)


def test_train_saves_a_slim_model_with_its_own_code(call_tool, config, base, tmp_path, monkeypatch):
    modules = str(tmp_path / 'modules')  # where transformers copies the folder's code to
    monkeypatch.setattr('transformers.dynamic_module_utils.HF_MODULES_CACHE', modules)
    monkeypatch.syspath_prepend(modules)
    prune_cfg = {**GLOBAL, 'recovery': dict(epochs=1)}
    ended = call_tool('train', config(prune_cfg), '--work-dir', tmp_path / 'work',
                      '--save-hf', tmp_path / 'hf')  # fmt: skip
    assert ended.code == 0, ended.out
    report = json.loads((tmp_path / 'work/report.json').read_text())
    expected = report['recovered']['metrics']['ppl/perplexity']
    found = perplexity(tmp_path / 'hf', base, trust_remote_code=True)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('tool', ['analysis_struct', 'train', 'test'])
def test_models_that_are_no_language_models_are_refused(call_tool, tool, tmp_path):
    checkpoint = [__file__] if tool == 'test' else []  # it isn't read
    ended = call_tool(tool, CONFIG, *checkpoint, '--save-hf', tmp_path / 'hf')
    assert ended.code == 2 and 'TimmClassifier is not a Hugging Face model' in ended.errors[-1]
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_refused_before_any_work(call_tool, config, tmp_path):
    (tmp_path / 'hf').mkdir()
    (tmp_path / 'hf/mine.txt').touch()
    ended = call_tool('analysis_struct', config(UNIFORM), '--output-dir', tmp_path / 'out',
                      '--save-hf', tmp_path / 'hf')  # fmt: skip
    assert ended.code == 2 and 'hf already exists' in ended.errors[-1]
    assert not (tmp_path / 'out').exists()
    for flags in (('--dry-run',), ('--sensitivity',), ('--meta',)):
        ended = call_tool('analysis_struct', config(UNIFORM), *flags, '--save-hf', tmp_path / 'new')
        assert ended.code == 2 and '--save-hf' in ended.errors[-1]

"""Training and evaluating a tiny model with the tools, as a user does."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from tiny_causal import LLAMA

import projects.llm  # noqa: F401
from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.structure.slimming import slim
from projects.prune_plugin.workflows import train
from projects.prune_plugin.workflows.evaluate import evaluate

CONFIGS = Path(__file__).resolve().parents[2] / 'projects' / 'configs'


@pytest.fixture
def config(tmp_path, dataset_cfg, hf_folder):
    """A config on the shared bases with a tiny model; changes as ``key=value`` of dotted keys."""

    def make(**changes) -> Config:
        text = (
            "_base_ = ['{0}/default_runtime.py', '{0}/datasets/text.py', "
            "'{0}/schedules/llm_adamw.py']\n"
            "custom_imports = dict(imports=['projects.prune_plugin', 'projects.llm'])\n"
            "model = dict(type='HFCausalLM', path={1!r})\n"
        ).format(CONFIGS / '_base_', str(hf_folder))
        file = tmp_path / 'tiny.py'
        file.write_text(text)
        cfg = Config.fromfile(file)
        for key, split in dict(train='train', val='valid', test='test').items():
            number = 400 if key == 'train' else 12
            windows = dataset_cfg(split=split, max_windows=number, tokenizer=str(hf_folder))
            cfg[f'{key}_dataloader'].dataset = windows
        cfg.train_dataloader.batch_size = 8
        cfg.optim_wrapper.optimizer.lr = 1e-2
        cfg.train_cfg.max_epochs = 2
        cfg.work_dir = str(tmp_path / 'work')
        cfg.merge_from_dict(changes)
        return cfg

    return make


def test_two_epochs_then_test(config, tmp_path):
    before = evaluate(config(), None, ['ppl'], 'none')['ppl/perplexity']
    train.train(config(), 'none')
    path = tmp_path / 'work' / 'epoch_2.pth'
    meta = torch.load(path, weights_only=False)['meta']
    assert meta['causal_lm']['model_type'] == 'llama'
    after = evaluate(config(), str(path), ['ppl'], 'none')
    assert after['ppl/perplexity'] < 0.8 * before
    assert after['ppl/windows'] == 12


def gradients(cfg: Config) -> dict:
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    batch = next(iter(Runner.build_dataloader(cfg.val_dataloader, seed=0)))
    model(**model.data_preprocessor(batch, True), mode='loss')['loss'].backward()
    return {name: p.grad for name, p in model.named_parameters()}


def test_gradient_checkpointing_changes_memory_alone(config):
    calls = []
    plain = gradients(config())
    checkpointed = config(**{'model.gradient_checkpointing': True})
    model = MODELS.build(checkpointed.model).train()
    model.lm.model.layers[0].self_attn.register_forward_hook(lambda *a: calls.append(1))
    model(torch.zeros(1, 8, dtype=torch.long), mode='loss')['loss'].backward()
    assert len(calls) == 2  # forward, and once more for the backward pass
    found = gradients(checkpointed)
    assert found.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(found[name], gradient)


def test_accumulation_and_mixed_precision(config, tmp_path):
    weights = {}
    for name, changes in {
        'whole': {'train_dataloader.batch_size': 40},
        'parts': {'train_dataloader.batch_size': 20, 'optim_wrapper.accumulative_counts': 2},
        'bf16': {'train_dataloader.batch_size': 40, 'optim_wrapper.type': 'Bf16OptimWrapper'},
    }.items():
        options = {
            'train_cfg.max_epochs': 1,
            'optim_wrapper.clip_grad': None,
            'param_scheduler': [],
        }
        cfg = config(**changes, **options, work_dir=str(tmp_path / name))
        cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.1)
        cfg.train_dataloader.sampler.shuffle = False
        cfg.model.gradient_checkpointing = name != 'whole'
        train.train(cfg, 'none')
        state = torch.load(tmp_path / name / 'epoch_1.pth', weights_only=False)['state_dict']
        weights[name] = state['lm.model.layers.0.mlp.up_proj.weight']
    torch.testing.assert_close(weights['parts'], weights['whole'], rtol=1e-4, atol=1e-5)
    assert weights['bf16'].dtype == torch.float32
    assert not torch.equal(weights['bf16'], weights['whole'])
    torch.testing.assert_close(weights['bf16'], weights['whole'], rtol=0.1, atol=1e-2)


def test_a_window_beyond_the_model_leaves_nothing_behind(config, tmp_path):
    with pytest.raises(UserError, match='65'):
        evaluate(config(**{'test_dataloader.dataset.window': 65}), None, None, 'none')
    assert not (tmp_path / 'work').exists()


class Echo:
    """An evaluation that isn't a metric."""

    def __init__(self, model) -> None:
        self.model = model

    def check(self, argument: str) -> None:
        if argument == 'bad':
            raise UserError('bad argument')

    def __call__(self, argument: str) -> dict:
        neurons = self.model.lm.model.layers[0].mlp.up_proj.weight.shape[0]
        return {f'{argument}/neurons': float(neurons)}


@pytest.fixture
def echo(monkeypatch):
    monkeypatch.setattr(
        projects.llm.models.HFCausalLM, 'evaluators', property(lambda self: {'echo': Echo(self)})
    )


def test_evaluators_of_the_model(config, echo, tmp_path):
    found = evaluate(config(), None, ['echo:a', 'ppl'], 'none')
    assert found['echo/a/neurons'] == 48.0 and found['ppl/windows'] == 12
    logged = [json.loads(f.read_text()) for f in (tmp_path / 'work').glob('*/*.json')]
    assert logged[0]['echo/a/neurons'] == 48.0
    cfg = config(**{'test_dataloader.dataset.data_root': '/nonexistent'})
    assert evaluate(cfg, None, ['echo:b'], 'none') == {'echo/b/neurons': 48.0}
    for name, message in {
        'echo:bad': 'bad argument',
        'lm:x': "no evaluator 'lm'; valid are echo",
        'nothing': 'is not a metric of this config; valid are ppl',
    }.items():
        with pytest.raises(UserError, match=message):
            evaluate(config(work_dir=str(tmp_path / 'no')), None, [name], 'none')
    assert not (tmp_path / 'no').exists()


def test_evaluators_of_a_slim_checkpoint(config, echo, tmp_path):
    from projects.prune_plugin import build_pruner

    model = MODELS.build(dict(type='HFCausalLM', architecture=LLAMA))
    pruner = build_pruner(
        dict(units=[dict(type='FFNNeurons')], criterion=dict(type='L1'),
             allocator=dict(type='Uniform'), budget=dict(type='units', ratio=0.5))
    )  # fmt: skip
    state = pruner.plan(model).state
    slim(model, state)
    path = tmp_path / 'slim.pth'
    torch.save(
        {'state_dict': model.state_dict(), 'meta': {'prune_state': state.to_dict()}}, path
    )  # fmt: skip
    found = evaluate(config(), str(path), ['echo:a', 'ppl'], 'none')
    assert found['echo/a/neurons'] == 24.0 and found['ppl/windows'] == 12


def test_without_lm_eval_it_says_what_to_install(config, monkeypatch):
    monkeypatch.setitem(sys.modules, 'lm_eval', None)
    monkeypatch.setitem(sys.modules, 'lm_eval.tasks', None)
    with pytest.raises(UserError, match='needs the package lm-eval: pip install lm-eval'):
        evaluate(config(), None, ['lm_eval:arc_easy'], 'none')


TASK = """task: tiny_choice
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
"""


@pytest.mark.skipif(importlib.util.find_spec('lm_eval') is None, reason='needs lm-eval')
def test_lm_eval_on_a_task_of_our_own(hf_folder, tmp_path, monkeypatch):
    from projects.llm.evaluation import LMEval

    monkeypatch.setenv('HF_DATASETS_CACHE', str(tmp_path / 'cache'))
    rows = [dict(question='the value', choices=['is true', 'of a'], answer=i % 2) for i in range(4)]
    (tmp_path / 'rows.json').write_text('\n'.join(map(json.dumps, rows)))
    (tmp_path / 'tiny_choice.yaml').write_text(TASK.format(file=tmp_path / 'rows.json'))
    model = MODELS.build(dict(type='HFCausalLM', path=str(hf_folder)))
    model.init_weights()
    evaluator = LMEval(model, include_path=str(tmp_path))
    assert evaluator('tiny_choice')['tiny_choice/acc'] == 0.5  # the same question, both answers
    with pytest.raises(UserError, match="knows no task 'no_such'"):
        evaluator.check('tiny_choice,no_such')

"""Iterative pruning of a tiny language model: perplexity, where less is more, and adapters."""

import csv
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

import projects.llm  # noqa: F401
from projects.prune_plugin.training.hooks.mask_hook import zero_share
from projects.prune_plugin.workflows import train as training

CONFIGS = Path(__file__).resolve().parents[2] / 'projects' / 'configs'
ROUNDS = dict(type='Geometric', share=0.3)


def load(path) -> dict:
    return torch.load(path, weights_only=False)


@pytest.fixture
def run(tmp_path, dataset_cfg, hf_folder):
    """Prune and train, or train alone; keys of ``prune_cfg`` as keywords. Gives the report."""

    def make(
        name: str, start: Path | None = None, train: dict | None = None, **prune_cfg
    ) -> dict | None:
        file = tmp_path / 'tiny.py'
        file.write_text(
            f"_base_ = ['{CONFIGS}/_base_/default_runtime.py', '{CONFIGS}/_base_/datasets/text.py', "
            f"'{CONFIGS}/_base_/schedules/llm_adamw.py']\n"
            "custom_imports = dict(imports=['projects.prune_plugin', 'projects.llm'])\n"
            f"model = dict(type='HFCausalLM', path={str(hf_folder)!r})\n"
        )
        cfg = Config.fromfile(file)
        for key, split in dict(train='train', val='valid', test='test').items():
            cfg[f'{key}_dataloader'].dataset = dataset_cfg(
                split=split, max_windows=200 if key == 'train' else 20, tokenizer=str(hf_folder)
            )
        cfg.train_dataloader.batch_size = 8
        cfg.pop('calibration_dataloader', None)
        cfg.train_cfg.val_interval = 100
        cfg.load_from = start and str(start)
        if train is None:
            cfg.prune_cfg = dict(type='WeightPruner', profile=dict(seconds=0.05), **prune_cfg)
        else:
            cfg.train_cfg.update(train)
            cfg.optim_wrapper.optimizer.lr = 1e-2
        cfg.work_dir = str(tmp_path / name)
        Path(cfg.work_dir).mkdir()
        report = training.train(cfg, 'none')
        return report and report.to_dict()

    return make


def test_perplexity_round_by_round(run, tmp_path):
    run('dense', train=dict(max_epochs=4))
    report = run(
        'rounds', tmp_path / 'dense' / 'latest.pth', budget=dict(ratio=0.8), schedule=ROUNDS,
        recovery=dict(lr=3e-3, max_steps=8, warmup_iters=0, epochs=1),
    )  # fmt: skip
    rows = json.loads((tmp_path / 'rounds' / 'history.json').read_text())['rows']
    assert len(rows) == 5 and report['headline'] == {'ppl/perplexity': 'min'}
    last = [rows[-1][when]['ppl/perplexity'] for when in ('after_prune', 'after_training')]
    assert rows[-1]['sparsity'] == pytest.approx(0.8, abs=1e-3) and last[1] < last[0]
    assert report['recovered']['metrics']['ppl/perplexity'] == last[1]
    with open(tmp_path / 'rounds' / 'history.csv') as file:
        table = list(csv.DictReader(file))
    gain = (last[0] - last[1]) / last[0]
    assert float(table[-1]['ppl/perplexity recovery']) == pytest.approx(gain)
    assert report['recovered']['epochs'] == 5
    for number in range(2, 6):  # each round goes on with the weights of the last
        before = load(tmp_path / 'rounds' / f'round_0{number - 1}' / 'latest.pth')['state_dict']
        after = load(tmp_path / 'rounds' / f'round_0{number}' / 'tiny_pruned.pth')['state_dict']
        for name, weight in after.items():
            assert torch.equal(weight, before[name] * (weight != 0)), name


@pytest.mark.parametrize('sparsifier', ['SparseGPT', 'Wanda'])
def test_adapters_and_methods_that_read_inputs(run, tmp_path, sparsifier):
    """With low-rank adapters as the training; merged, they keep the zeros."""
    pytest.importorskip('peft')
    report = run(
        'lora', sparsifier=dict(type=sparsifier), schedule=ROUNDS, budget=dict(ratio=0.6),
        calibration=dict(num_samples=8, batch_size=2),
        recovery=dict(mode='retrain', epochs=1, max_steps=2, lora=dict(r=2, lr=1e-2)),
    )  # fmt: skip
    ratios = [row['ratio'] for row in report['rounds']]
    for number, ratio in enumerate(ratios, 1):
        latest = load(tmp_path / 'lora' / f'round_0{number}' / 'latest.pth')
        assert zero_share(latest) == pytest.approx(ratio, abs=0.02)

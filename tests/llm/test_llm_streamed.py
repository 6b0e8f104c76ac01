"""Block by block is bit by bit: a streamed pruning writes and measures what an ordinary one does."""

import json
from pathlib import Path

import pytest
import torch
from tiny_causal import LLAMA

transformers = pytest.importorskip('transformers')

from mmengine.config import Config  # noqa: E402
from safetensors import safe_open  # noqa: E402

import projects.llm  # noqa: E402, F401
from projects.prune_plugin.checkpoints.model_loading import load_model  # noqa: E402
from projects.prune_plugin.evaluation.test_set import TestSet  # noqa: E402
from projects.prune_plugin.workflows.options import PruneOptions  # noqa: E402
from projects.prune_plugin.workflows.prune import data_factory, pruner_from_config  # noqa: E402
from projects.prune_plugin.workflows.save_results import write_record  # noqa: E402
from projects.prune_plugin.workflows.streamed import prune_streamed  # noqa: E402

WEIGHTS = dict(type='WeightPruner', budget=dict(ratio=0.5), include=[r'.*\.layers\.'])
METHODS = {
    'sparsegpt': dict(sparsifier=dict(type='SparseGPT')),
    'sparsegpt_plain': dict(sparsifier=dict(type='SparseGPT', dense_targets=0)),
    'wanda': dict(sparsifier=dict(type='Wanda')),
    '2of4': dict(sparsifier=dict(type='SparseGPT', pattern='2:4'), budget={}),
    'magnitude': dict(sparsifier=dict(type='Magnitude')),
}


@pytest.fixture(scope='module')
def sharded_folder(tmp_path_factory, tokenizer_folder) -> Path:
    """A Llama of three layers in several files, its output layer untied."""
    import shutil

    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp('sharded') / 'tiny-llama'
    config = transformers.AutoConfig.for_model(
        **{**LLAMA, 'num_hidden_layers': 3, 'tie_word_embeddings': False}
    )
    lm = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    lm.save_pretrained(folder, max_shard_size='20KB')
    assert len(list(folder.glob('*.safetensors'))) > 3
    for file in tokenizer_folder.iterdir():
        shutil.copy(file, folder)
    return folder


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    """Drawing takes longer than pruning."""
    monkeypatch.setattr(
        'projects.prune_plugin.workflows.streamed.write_report',
        lambda result, folder: write_record(result.report, folder),
    )


@pytest.fixture
def config(sharded_folder, dataset_cfg):
    """``config(prune_cfg)``: a config that prunes and evaluates the tiny Llama."""

    def make(prune_cfg: dict, **execution) -> Config:
        def loader(**kwargs) -> dict:
            return dict(batch_size=2, num_workers=0, dataset=dataset_cfg(**kwargs),
                        sampler=dict(type='DefaultSampler', shuffle=False),
                        collate_fn=dict(type='default_collate'))  # fmt: skip

        prune_cfg = dict(prune_cfg, calibration=dict(num_samples=12, batch_size=2))
        if execution:
            prune_cfg['execution'] = dict(execution, max_shard_size='30KB')
        return Config(
            dict(
                model=dict(type='HFCausalLM', path=str(sharded_folder), window=16),
                calibration_dataloader=loader(split='valid', max_windows=12),
                test_dataloader=loader(max_windows=6),
                test_evaluator=dict(type='Perplexity'),
                prune_cfg=dict(prune_cfg, name='tiny'),
            )
        )

    return make


def in_memory(cfg: Config) -> tuple[dict, dict, dict]:
    """Weights, zeros by weight, and metrics before and after, of a model that is held as a whole."""
    loaded, pruner, test_set = load_model(cfg, None), pruner_from_config(cfg), TestSet(cfg)
    data = data_factory(cfg, pruner)
    metrics = {'dense': test_set.evaluate(loaded.model, 'dense')}
    pruner.check(loaded.model, data)
    plan = pruner.plan(loaded.model, data)
    pruned = pruner.apply(loaded.model, plan, data)
    metrics['pruned'] = test_set.evaluate(pruned.model, 'pruned')
    zeros = {name: mask.numel() - int(mask.sum()) for name, mask in pruned.masks.items()}
    return pruned.model.state_dict(), zeros, metrics


def read_folder(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's shards, by the names that the wrapped model has."""
    tensors = {}
    for file in folder.glob('*.safetensors'):
        with safe_open(file, 'pt') as opened:
            tensors |= {f'lm.{name}': opened.get_tensor(name) for name in opened.keys()}
    return tensors


def streamed(cfg: Config, folder: Path, **options) -> tuple[dict, dict]:
    """Weights and report of a streamed run."""
    result = prune_streamed(cfg, pruner_from_config(cfg), PruneOptions(None, folder, **options))
    return read_folder(result.trained()), json.loads((folder / 'report.json').read_text())


def assert_same(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]


@pytest.mark.parametrize('name', METHODS)
def test_streamed_weights_are_those_of_an_ordinary_run(name, config, tmp_path):
    prune_cfg = {**WEIGHTS, **METHODS[name]}
    weights, zeros, metrics = in_memory(config(prune_cfg))
    offload = 'disk' if name in ('sparsegpt', '2of4') else 'cpu'
    ours, report = streamed(config(prune_cfg, mode='streamed', offload=offload), tmp_path)
    assert_same(ours, weights)
    assert {row['name']: row['zeros'] for row in report['weights']} == zeros
    for stage in ('dense', 'pruned'):
        assert report[stage]['metrics'] == metrics[stage] and metrics[stage]
    assert {p.name for p in tmp_path.iterdir()} == {'report.json', 'summary.csv', 'tiny_pruned'}

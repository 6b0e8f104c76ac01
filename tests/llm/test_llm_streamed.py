"""Block by block is bit by bit: a streamed pruning writes and measures what an ordinary one does."""

import errno
from pathlib import Path

import pytest
import torch
from tiny_causal import LLAMA

transformers = pytest.importorskip('transformers')

from mmengine.config import Config  # noqa: E402
from streamed_runs import assert_same, in_memory, killed, streamed  # noqa: E402

import projects.llm  # noqa: E402, F401
from projects.prune_plugin.checkpoints.shards import ShardWriter, writing  # noqa: E402
from projects.prune_plugin.common.errors import UserError  # noqa: E402
from projects.prune_plugin.methods.pruners.sparsify import SparsifierRun  # noqa: E402
from projects.prune_plugin.streaming.progress import StreamProgress  # noqa: E402
from projects.prune_plugin.streaming.sweep import Sweep  # noqa: E402
from projects.prune_plugin.workflows.save_results import write_record  # noqa: E402

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


#: Where a run is killed: in the middle of pruning and of writing a block, behind one, and at the end.
MOMENTS = {
    'pruning': (SparsifierRun, 'prune', 2, True),
    'writing': (ShardWriter, 'write', 13, False),
    'between': (StreamProgress, 'commit', 2, True),
    'end': (Sweep, 'end', 1, True),
}


@pytest.mark.parametrize('moment', MOMENTS)
def test_a_killed_run_goes_on_to_the_same_bits(moment, config, tmp_path):
    prune_cfg = {**WEIGHTS, **METHODS['sparsegpt']}
    offload = 'disk' if moment == 'writing' else 'cpu'
    cfg = config(prune_cfg, mode='streamed', offload=offload)
    whole, report = streamed(cfg, tmp_path / 'whole')
    killed(lambda: streamed(cfg, tmp_path / 'killed'), *MOMENTS[moment])
    assert not (tmp_path / 'killed/tiny_pruned').exists()
    ours, own = streamed(cfg, tmp_path / 'killed', resume=True)
    assert_same(ours, whole)
    for key in ('weights', 'dense', 'pruned', 'achieved'):
        assert own[key] == report[key]
    done = {'pruning': 1, 'writing': 1, 'between': 2, 'end': 3}[moment]
    size = sum(t.nbytes for name, t in ours.items() if '.layers.' in name) / 3
    saved = report['streamed']['bytes_read'] - own['streamed']['bytes_read']
    assert saved == done * size, 'finished blocks are not read again'
    assert not (tmp_path / 'killed/progress').exists()


def test_a_full_disk_is_a_sentence_and_can_be_resumed(config, tmp_path, monkeypatch):
    cfg = config({**WEIGHTS, **METHODS['magnitude']}, mode='streamed')
    written = []

    def full(path, data, start):
        if len(written) == 12:
            raise OSError(errno.ENOSPC, 'No space left on device', str(path))
        written.append(path)
        write_at(path, data, start)

    write_at = writing.write_at
    with monkeypatch.context() as patch, pytest.raises(UserError) as said:
        patch.setattr(writing, 'write_at', full)
        streamed(cfg, tmp_path)
    assert 'No space left on device' in str(said.value)
    assert '1 blocks are finished' in str(said.value) and '--resume' in str(said.value)
    weights, _ = streamed(cfg, tmp_path, resume=True)
    assert_same(weights, streamed(cfg, tmp_path / 'other')[0])

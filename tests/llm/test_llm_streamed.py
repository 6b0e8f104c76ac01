"""Block by block is bit by bit: a streamed pruning writes and measures what an ordinary one does."""

import errno
from pathlib import Path

import pytest
import torch
from tiny_causal import ARCHITECTURES, LLAMA

transformers = pytest.importorskip('transformers')

from mmengine.config import Config  # noqa: E402
from streamed_runs import assert_same, in_memory, killed, scored, streamed  # noqa: E402

import projects.llm  # noqa: E402, F401
from projects.prune_plugin.checkpoints.shards import ShardWriter, writing  # noqa: E402
from projects.prune_plugin.common.errors import UserError  # noqa: E402
from projects.prune_plugin.methods.compensation import LeastSquares  # noqa: E402
from projects.prune_plugin.methods.pruners import build_pruner  # noqa: E402
from projects.prune_plugin.methods.pruners.execution import check_in_memory  # noqa: E402
from projects.prune_plugin.methods.pruners.sparsify import SparsifierRun  # noqa: E402
from projects.prune_plugin.streaming.progress import StreamProgress  # noqa: E402
from projects.prune_plugin.streaming.sweep import Sweep  # noqa: E402
from projects.prune_plugin.workflows.options import PruneOptions  # noqa: E402
from projects.prune_plugin.workflows.prune import pruner_from_config  # noqa: E402
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


@pytest.mark.parametrize('family', ['opt', 'gpt_neox', 'qwen2'])
def test_other_architectures(family, config, tmp_path, dataset_cfg):
    """With embeddings that are tied or projected, biases, and layers behind norms."""
    torch.manual_seed(2)
    made = transformers.AutoConfig.for_model(**ARCHITECTURES[family])
    lm = transformers.AutoModelForCausalLM.from_config(made)
    lm.save_pretrained(tmp_path / 'dense')
    include = dict(include=[r'.*layers\.'])
    prune_cfg = {**WEIGHTS, **METHODS['sparsegpt'], **include}
    cfg, own = config(prune_cfg), config(prune_cfg, mode='streamed', offload='cpu')
    for one in (cfg, own):
        one.model.path = str(tmp_path / 'dense')
    weights, _, metrics = in_memory(cfg)
    ours, report = streamed(own, tmp_path / 'out')
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'out/tiny_pruned')
    assert_same({f'lm.{n}': t for n, t in loaded.state_dict().items()}, weights)
    assert ours.keys() <= weights.keys()
    assert report['pruned']['metrics'] == metrics['pruned']


REFUSED = {
    'rounds': (dict(schedule=dict(type='Geometric')), {}, 'prunes once'),
    'global': (dict(sparsifier=dict(type='Magnitude', scope='global')), {}, 'take scope="layer"'),
    'head': (dict(sparsifier=dict(type='Wanda'), include=['.*']), {}, 'lm_head.weight is outside'),
    'checkpoint': ({}, dict(checkpoint='x.pth'), 'the checkpoint x.pth is given'),
    'bn': (dict(calibration=dict(recalibrate_bn=4)), {}, 'recalibrates no batch norms'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_cannot_be_streamed_is_refused_before_anything_is_written(case, config, tmp_path):
    blocks, options, said = REFUSED[case]
    prune_cfg = {**WEIGHTS, 'sparsifier': dict(type='Magnitude'), **blocks}
    cfg = config(prune_cfg, mode='streamed')
    cfg.prune_cfg.calibration.update(blocks.get('calibration', {}))
    with pytest.raises(UserError, match=said):
        options = PruneOptions(options.get('checkpoint'), tmp_path / 'out')
        prune_streamed(cfg, pruner_from_config(cfg), options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'model, said',
    [
        (dict(path=None, architecture=LLAMA), 'model.path is missing'),
        (dict(architecture=dict(LLAMA, num_hidden_layers=4)), 'lacks 9 tensors.*layers.3'),
        (dict(architecture=dict(LLAMA, num_hidden_layers=3, intermediate_size=40)), 'another shape of 9'),
    ],
)  # fmt: skip
def test_files_that_do_not_fit(model, said, config, tmp_path):
    cfg = config({**WEIGHTS, 'sparsifier': dict(type='Magnitude')}, mode='streamed')
    cfg.model.update(model)
    with pytest.raises(UserError, match=said):
        streamed(cfg, tmp_path / 'out')
    assert not list(tmp_path.iterdir())


def test_the_folder_is_not_written_over(config, tmp_path):
    (tmp_path / 'tiny_pruned').mkdir()
    cfg = config({**WEIGHTS, 'sparsifier': dict(type='Magnitude')}, mode='streamed')
    with pytest.raises(UserError, match='holds tiny_pruned already'):
        streamed(cfg, tmp_path)


@pytest.mark.parametrize(
    'execution, said',
    [
        (dict(mode='fast'), 'execution.mode is .fast.; valid are memory, streamed'),
        (dict(offload='tape'), 'execution.offload is .tape.; valid are cpu, disk'),
        (dict(max_memory='12'), "execution.max_memory is '12'; it must be a size such as '12GB'"),
        (dict(max_shard_size=0), 'execution.max_shard_size is 0'),
        (dict(speed=1), 'execution.speed is not a key'),
    ],
)
def test_settings_are_checked(execution, said):
    with pytest.raises(UserError, match=said):
        build_pruner(dict(execution=execution))


def test_sizes():
    settings = build_pruner(dict(execution=dict(max_memory='1.5gb', max_shard_size=2))).execution
    assert (settings.most_memory, settings.shard_size) == (1_500_000_000, 2_000_000_000)
    with pytest.raises(UserError, match='a curve needs the whole model'):
        check_in_memory(build_pruner(dict(execution=dict(mode='streamed'))).execution, 'a curve')


UNITS = dict(
    type='StructuredPruner',
    units=[dict(type='AttentionHeads'), dict(type='FFNNeurons')],
    budget=dict(type='params', ratio=0.25),
    compensation=dict(type='LeastSquares'),
    weight_level=False,
)
UNIT_METHODS = {
    'l1': dict(criterion=dict(type='L1')),
    'activation': dict(criterion=dict(type='Activation')),
    'wanda': dict(criterion=dict(type='Wanda', normalize='mean'), compensation=None),
    'table': dict(criterion=dict(type='Fisher')),
    'layers': dict(
        units=[dict(type='PreNormLayers')], budget=dict(type='units', ratio=0.3), compensation=None
    ),
    'uniform': dict(allocator=dict(type='Uniform'), units=[dict(type='FFNNeurons')], round_to=8),
}


@pytest.mark.parametrize('name', UNIT_METHODS)
def test_streamed_units_are_those_of_an_ordinary_run(name, config, tmp_path):
    prune_cfg = {**UNITS, **UNIT_METHODS[name]}
    table = str(tmp_path / 'table.csv') if name == 'table' else None
    if table:
        scored(config(prune_cfg), table)
    weights, _, metrics = in_memory(config(prune_cfg), table)
    offload = 'disk' if name in ('table', 'activation') else 'cpu'
    cfg = config(prune_cfg, mode='streamed', offload=offload)
    _, report = streamed(cfg, tmp_path / 'out', from_table=table)
    lm = projects.llm.load_slim(tmp_path / 'out/tiny_structured_pruned')
    ours = {f'lm.{name}': tensor for name, tensor in lm.state_dict().items()}
    if name == 'layers':  # those that are left are counted anew
        assert [t.tolist() for t in ours.values()] == [t.tolist() for t in weights.values()]
    else:
        assert_same(ours, weights)
    for stage in ('dense', 'pruned'):
        assert report[stage]['metrics'] == metrics[stage] and metrics[stage]
    assert report['pruned']['params'] == sum(p.numel() for p in lm.parameters())
    assert {p.name for p in (tmp_path / 'out').iterdir()} == {
        'report.json', 'summary.csv', 'tiny_structured_pruned'
    }  # fmt: skip


def test_units_killed_in_the_middle_of_a_refit(config, tmp_path):
    cfg = config({**UNITS, **UNIT_METHODS['l1']}, mode='streamed')
    whole, _ = streamed(cfg, tmp_path / 'whole')
    moment = (LeastSquares, 'refit_layers', 4, False)
    killed(lambda: streamed(cfg, tmp_path / 'killed'), *moment)
    assert_same(streamed(cfg, tmp_path / 'killed', resume=True)[0], whole)


@pytest.mark.parametrize(
    'blocks, said',
    [
        (dict(criterion=dict(type='Fisher')), 'Fisher reads gradients.*--from-table'),
        (dict(criterion=dict(type='Remain')), 'Remain ranks all weights together'),
        (dict(budget=dict(type='latency', ratio=0.2)), 'times the whole model'),
        (dict(units=[dict(type='CoupledChannels', shared=True)]), 'CoupledChannels runs the model'),
    ],
)  # fmt: skip
def test_units_that_cannot_be_streamed(blocks, said, config, tmp_path):
    with pytest.raises(UserError, match=said):
        streamed(config({**UNITS, **blocks}, mode='streamed'), tmp_path / 'out')
    assert not list(tmp_path.iterdir())

"""``--meta``: planning without weights, data or a clock."""

import csv
import json

import pytest
import torch
from tool_runs import CONFIG, options

LLAMA = """
custom_imports = dict(imports=['projects.prune_plugin', 'projects.llm'])
model = dict(type='HFCausalLM', window=128, dtype={dtype!r}, path={path!r}, architecture=dict(
    model_type={kind!r}, vocab_size=128256, hidden_size=4096, {mlp}=14336,
    num_hidden_layers=4, num_attention_heads=32, {more}))
prune_cfg = dict(criterion=dict(type='Taylor'), budget=dict(type={budget!r}, ratio=0.25))
"""
GQA = dict(kind='llama', mlp='intermediate_size', more='num_key_value_heads=8')
OPT = dict(kind='opt', mlp='ffn_dim', more='word_embed_proj_dim=4096')
NEOX = dict(kind='gpt_neox', mlp='intermediate_size', more='')


@pytest.fixture
def config(tmp_path):
    """``config(GQA, budget='flops')``: a config file for a model too large to be built."""
    pytest.importorskip('transformers')

    def write(kind, budget='params', dtype='float32', path=None) -> str:
        file = tmp_path / 'large_llm.py'
        file.write_text(LLAMA.format(**kind, budget=budget, dtype=dtype, path=path))
        return str(file)

    return write


def planned(call_tool, folder, *args) -> dict:
    ended = call_tool('analysis_struct', *args, '--meta', '--output-dir', folder)
    assert ended.code == 0, ended.out
    assert 'FSDP2' in ended.out and 'unit groups' in ended.out
    return json.loads((folder / 'report.json').read_text())


def test_a_large_llama(call_tool, config, tmp_path):
    report = planned(call_tool, tmp_path / 'out', config(GQA))
    layer = 4096 * (32 + 2 * 8 + 32) * 128 + 3 * 4096 * 14336 + 2 * 4096
    dense = 2 * 128256 * 4096 + 4096 + 4 * layer
    assert report['dense']['params'] == dense
    assert report['pruned']['params'] == pytest.approx(0.75 * dense, rel=1e-4)
    products = dense - 128256 * 4096 - 9 * 4096  # the embedding is looked up, norms are no products
    attention = 4 * 2 * 32 * 128 * 128 * 128
    assert report['dense']['flops'] == 2 * (128 * products + attention)
    assert report['pruned']['flops'] < 0.85 * report['dense']['flops']
    assert report['scores'].startswith('random') and 'Taylor' in report['scores']
    rows = {(r['model'], r['strategy'], r['ranks']): r for r in report['memory']}
    assert rows['dense', 'DDP', 8]['weights'] == dense * 4 / 2**30
    assert rows['dense', 'FSDP2', 8]['total'] == pytest.approx(dense * 2 / 2**30, rel=1e-3)
    assert rows['pruned', 'FSDP2', 4]['total'] == pytest.approx(0.75 * dense * 4 / 2**30, rel=1e-3)
    with open(tmp_path / 'out/units.csv', newline='') as file:
        units = list(csv.DictReader(file))
    assert len(units) == 4 * (8 + 14336)
    assert {float(row['cost']) for row in units} == {3.0 * 4096, 10.0 * 128 * 4096}
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
        'global_group_table.csv', 'groups_to_prune.csv', 'report.csv', 'report.json', 'summary.csv',
        'units.csv',
    ]  # fmt: skip
    # The same plan again, from the saved scores, in half precision and for a FLOPs budget.
    table = str(tmp_path / 'scores.csv')
    again = planned(
        call_tool, tmp_path / 'again', config(GQA, dtype='bfloat16'), '--save-table', table
    )
    assert again['groups'] == report['groups']
    assert again['memory'][0]['total'] == report['memory'][0]['total'] / 2
    third = planned(
        call_tool, tmp_path / 'third', config(GQA, budget='flops'), '--from-table', table
    )
    assert third['scores'] == f'from {table}'
    assert third['achieved']['flops'] == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize('kind', [OPT, NEOX], ids=['opt', 'gpt_neox'])
def test_other_families(call_tool, config, tmp_path, kind):
    report = planned(call_tool, tmp_path / 'out', config(kind))
    assert report['achieved']['params'] == pytest.approx(0.25, abs=1e-3)
    assert report['achieved']['flops'] > 0.2


def test_the_model_need_not_be_there_where_the_config_says_its_shape(call_tool, config, tmp_path):
    planned(call_tool, tmp_path / 'out', config(GQA, path='./no/such/folder'))


def test_image_classifiers_and_nothing_written(call_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = call_tool('analysis_struct', CONFIG, '--meta', *options())
    assert ended.code == 0, ended.out
    assert 'random, in the place of L1' in ' '.join(ended.out.split())
    assert not list(tmp_path.iterdir())


def test_the_same_flops_as_with_weights(tmp_path):
    from mmengine.config import Config

    from projects.prune_plugin.evaluation.profiling import profile
    from projects.prune_plugin.workflows.plan_on_meta import build_on_meta
    from projects.prune_plugin.workflows.prune import pruner_from_config

    if pytest.importorskip('transformers'):
        model = dict(
            type='HFCausalLM', window=16,
            architecture=dict(model_type='llama', vocab_size=96, hidden_size=64,
                              intermediate_size=96, num_hidden_layers=2, num_attention_heads=8),
        )  # fmt: skip
        cfg = Config(dict(model=model, custom_imports=dict(imports=['projects.llm'])))
        import projects.llm  # noqa: F401
        from projects.prune_plugin.checkpoints.model_loading import load_model

        real, settings = load_model(cfg, None).model, pruner_from_config(cfg).profile
        assert all(p.is_meta for p in build_on_meta(cfg).parameters())
        counted = [profile([m], settings, False)[0] for m in (build_on_meta(cfg), real)]
        assert counted[0] == counted[1] and counted[0]['flops'] > 0
        assert torch.get_default_device().type == 'cpu'


@pytest.mark.parametrize(
    'arguments, said',
    [
        (('some.pth',), 'leave out CHECKPOINT'),
        (('--fine-tune',), 'leave out --fine-tune'),
        (('--save-hf', 'x'), 'leave out --save-hf'),
        (('--resume',), 'leave out --resume'),
        (('--cfg-options', 'prune_cfg.type=WeightPruner'), 'take a StructuredPruner'),
        (('--cfg-options', 'prune_cfg.budget.type=latency'), 'take a params or flops budget'),
        (('--pruning-ratio', '0.9999'), 'prune_cfg.budget.ratio is 0.9999'),
    ],
)
def test_what_needs_weights_is_refused(call_tool, tmp_path, arguments, said):
    ended = call_tool(
        'analysis_struct', CONFIG, *arguments, '--meta', '--output-dir', tmp_path / 'x'
    )
    assert ended.code == 2 and said in ended.errors[-1], ended.out
    assert not list(tmp_path.iterdir())

"""``tools/analysis_struct.py --sensitivity``: its figures against models cut by hand."""

import csv
import json

import pytest
import torch
from tool_runs import CONFIG, SMALL, options

TOOL = 'analysis_struct'
RATIOS = (0.1, 0.3, 0.35, 0.9)
WIDTH, HEAD, SAMPLES = 64, 16, 100
MODULES = [f'backbone.blocks.{i}.{part}' for i in range(2) for part in ('attn', 'mlp')]
ONLY_LAST = 'prune_cfg.include=[.*blocks.1.mlp]'


def arguments(checkpoint, folder, *more: str, ratios=RATIOS, samples: int = SAMPLES) -> list:
    """A whole command line."""
    return [
        CONFIG, checkpoint, '--output-dir', folder, '--sensitivity', *ratios,
        '--sensitivity-samples', samples, *options(*more),
    ]  # fmt: skip


def table(folder) -> dict[tuple[str, float], dict]:
    """``sensitivity.csv`` by module and ratio."""
    with (folder / 'sensitivity.csv').open(newline='') as file:
        return {(row['module'], float(row['ratio'])): row for row in csv.DictReader(file)}


@pytest.fixture(scope='module')
def first(run_tool, checkpoint, tmp_path_factory):
    """A whole run, and how it ended."""
    folder = tmp_path_factory.mktemp('sensitivity') / 'out'
    return folder, run_tool(TOOL, *arguments(checkpoint, folder))


def test_everything_is_there_and_nothing_else(first):
    pytest.importorskip('matplotlib')
    folder, ended = first
    assert {path.name for path in folder.iterdir()} == {
        'sensitivity.csv', 'sensitivity.json', 'sensitivity.png',
    }  # fmt: skip
    assert (folder / 'sensitivity.png').read_bytes()[:4] == b'\x89PNG'
    rows = table(folder)
    assert list(rows) == [(module, ratio) for module in MODULES for ratio in RATIOS]
    assert 'sensitivity at ratio 0.9' in ended.out
    report = json.loads((folder / 'sensitivity.json').read_text())
    assert report['headline'] == {'accuracy/top1': 'max'}
    assert report['asked'] == {'ratios': list(RATIOS), 'samples': SAMPLES, 'criterion': 'L1'}
    assert set(report['dense']['metrics']) == {'accuracy/top1', 'accuracy/top5'}


def test_units_and_sizes_by_hand(first):
    """Four heads, of which one stays, and 256 neurons.

    FLOPs are two per weight and token, and those of the heads' products.
    """
    tokens = 17
    for (module, ratio), row in table(first[0]).items():
        heads = module.endswith('attn')
        gone = {0.1: 0, 0.3: 1, 0.35: 1, 0.9: 3}[ratio] if heads else round(256 * ratio)
        assert int(row['units']) - int(row['kept']) == gone
        if not gone:
            assert row['params_removed'] == row['accuracy/top1'] == ''
            continue
        params = gone * (4 * WIDTH * HEAD + 3 * HEAD if heads else 2 * WIDTH + 1)
        flops = 2 * tokens * 2 * WIDTH * gone
        if heads:
            flops = 2 * gone * HEAD * (4 * tokens * WIDTH + 2 * tokens * tokens)
        assert (int(row['params_removed']), int(row['flops_removed'])) == (params, flops)


def test_metrics_are_those_of_models_cut_by_hand(first, checkpoint):
    """Neurons by the absolute weights of both layers; heads by those of qkv and of proj."""
    from mmengine.registry import MODELS

    from projects.prune_plugin.checkpoints.checkpoint_file import load_file
    from projects.prune_plugin.workflows.cli import read_config
    from projects.vit.datasets.digits import Digits

    cfg = read_config(CONFIG, SMALL[:3])
    data = Digits('test', indices=SAMPLES)
    images = torch.stack([data[i]['inputs'] for i in range(SAMPLES)]).float()
    images = (images / 255 - 0.2988) / 0.3237
    labels = torch.tensor(data.labels)

    def accuracies(cut=None, gone=()) -> list[float]:
        model = MODELS.build(cfg.model)
        model.load_state_dict(load_file(checkpoint)['state_dict'])
        model.eval()
        with torch.no_grad():
            for weight in cut(model) if cut else ():
                weight[list(gone)] = 0  # a unit of zeros adds nothing, like none at all
            right = model.backbone(images).argsort(descending=True) == labels[:, None]
            return [100 * float(right[:, :k].any(1).double().mean()) for k in (1, 5)]

    def neurons(i):
        def cut(model):
            mlp = model.backbone.blocks[i].mlp
            return mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight.T

        return cut

    def heads(i):
        def cut(model):
            attn = model.backbone.blocks[i].attn
            rows = attn.qkv.weight.view(3, 4, HEAD, WIDTH).transpose(0, 1)
            return rows, attn.proj.weight.view(WIDTH, 4, HEAD).transpose(0, 1)

        return cut

    model = MODELS.build(cfg.model)
    model.load_state_dict(load_file(checkpoint)['state_dict'])
    rows = table(first[0])
    found, expected = [], []
    for i in range(2):
        for kind, cut in (('attn', heads(i)), ('mlp', neurons(i))):
            weights = [w for w in cut(model) if w.dim() > 1]
            scores = sum(w.detach().abs().flatten(1).sum(1) for w in weights)
            for ratio in RATIOS:
                gone = min(int(len(scores) * ratio + 0.5), len(scores) - 1)
                row = rows[f'backbone.blocks.{i}.{kind}', ratio]
                if gone:
                    found += [float(row[f'accuracy/top{k}']) for k in (1, 5)]
                    expected += accuracies(cut, scores.argsort()[:gone].tolist())
    assert found == pytest.approx(expected, abs=1e-4)
    report = json.loads((first[0] / 'sensitivity.json').read_text())
    dense = report['dense']['metrics']
    assert list(dense.values()) == pytest.approx(accuracies(), abs=1e-4)
    assert len(set(found[1::2])) >= 3, 'the test would see a mix-up'


def test_nothing_is_evaluated_twice(first, checkpoint, call_tool, tmp_path, counted):
    folder = tmp_path / 'out'
    counted.limit = 5
    with pytest.raises(RuntimeError, match='broken off'):
        call_tool(TOOL, *arguments(checkpoint, folder))
    left = [row for row in table(folder).values() if row['accuracy/top1']]
    assert len(left) == 5  # of four cuts, one at two ratios
    assert not (folder / 'sensitivity.png').exists()
    counted.limit = None
    call_tool(TOOL, *arguments(checkpoint, folder))
    assert len(counted) == len(set(counted)) == 1 + 2 * (2 + 4)
    assert table(folder) == table(first[0])
    call_tool(TOOL, *arguments(checkpoint, folder, ratios=(0.5, 0.3)))
    assert counted[13:] == [f'{module} at 0.5' for module in MODULES]
    del counted[:]
    call_tool(TOOL, *arguments(checkpoint, folder, ONLY_LAST, ratios=(0.3,), samples=50))
    assert counted == ['dense', 'backbone.blocks.1.mlp at 0.3']


def test_scores_may_come_from_a_table(checkpoint, call_tool, tmp_path):
    scores, folder = tmp_path / 'scores.csv', tmp_path / 'out'
    call_tool(TOOL, CONFIG, checkpoint, '--dry-run', '--save-table', scores, *options())
    lines = scores.read_text().splitlines()
    turned = [line.split(',') for line in lines]
    for line in turned[1:]:
        line[4] = str(-float(line[4]))
    scores.write_text('\n'.join(','.join(line) for line in turned) + '\n')
    digests = []
    for more in ((), ('--from-table', scores)):
        command = arguments(checkpoint, folder, ONLY_LAST, ratios=(0.5,))
        ended = call_tool(TOOL, *command[:4], *more, *command[4:])
        assert ended.code == 0
        report = json.loads((folder / 'sensitivity.json').read_text())
        digests.append(report['rows'][0]['digest'])
    assert report['asked']['criterion'] == f'table {scores}'
    assert digests[0] != digests[1]


def test_two_ranks_find_what_one_finds(first, checkpoint, run_tool, tmp_path):
    folder = tmp_path / 'out'
    command = arguments(checkpoint, folder, ONLY_LAST, ratios=(0.3, 0.9))
    run_tool(TOOL, *command, '--launcher', 'pytorch', ranks=2)
    alone = {key: row for key, row in table(first[0]).items() if key in table(folder)}
    assert len(alone) == 2 and table(folder) == alone


BAD = [
    ('--sensitivity 0', (), "--sensitivity: '0' is not a number in (0, 1), the fraction removed, and 0 re"),
    ('--sensitivity 0.3 1', (), "--sensitivity: '1' is not a number in (0, 1)"),
    ('--sensitivity -0.3', (), '-0.3'),
    ('--sensitivity x', (), "--sensitivity: 'x' is not a number"),
    ('--sensitivity-samples 5', (), '--sensitivity-samples goes with --sensitivity'),
    ('--sensitivity --sensitivity-samples 0', (), "'0' is not a whole number of at least 1"),
    ('--sensitivity --pruning-ratio 0.3', (), '--pruning-ratio does not go with --sensitivity'),
    ('--sensitivity --fine-tune', (), '--fine-tune does not go with --sensitivity'),
    ('--sensitivity --dry-run', (), '--dry-run does not go with --sensitivity'),
    ('--sensitivity --save-table t.csv', (), '--save-table does not go with --sensitivity'),
    ('--sensitivity', ('test_dataloader=None',),
     'the config has no test_dataloader and test_evaluator'),
    ('--sensitivity', ('prune_cfg.type=WeightPruner',),
     "prune_cfg.type is 'WeightPruner'; --sensitivity removes units and needs a 'StructuredPruner'"),
    ('--sensitivity', ('prune_cfg.criterion.type=Taylor', 'train_dataloader=None'),
     'Taylor needs calibration data, but the config has no train_dataloader'),
    ('--sensitivity 0.1', ('prune_cfg.include=[.*attn]',),
     '--sensitivity 0.1 would remove nothing of any module'),
]  # fmt: skip


@pytest.mark.parametrize(('flags', 'more', 'message'), BAD, ids=[f'{f} {m}' for f, m, _ in BAD])
def test_bad_input(flags, more, message, checkpoint, call_tool, tmp_path):
    folder = tmp_path / 'out'
    command = [CONFIG, checkpoint, '--output-dir', folder, *flags.split(), *options(*more)]
    ended = call_tool(TOOL, *command)
    assert ended.code == 2
    assert len(ended.errors) == 1 and message in ended.errors[0], ended.err
    assert not folder.exists()

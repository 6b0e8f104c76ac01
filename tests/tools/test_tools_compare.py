"""``tools/compare.py``: its files agree with other counts, with ``tools/test.py``, and on two ranks."""

import csv
import json
import os

import pytest
import torch
from tool_runs import CONFIG, ROOT, options

COMPARE = 'compare'
RATIO = 0.4
METRICS = {'accuracy/top1', 'accuracy/top5'}


def load(path) -> dict:
    from projects.prune_plugin.checkpoints.checkpoint_file import load_file

    return load_file(path)


@pytest.fixture(scope='module')
def checkpoints(run_tool, checkpoint, tmp_path_factory) -> list:
    """A dense, a slim and a masked checkpoint of one model."""
    folder = tmp_path_factory.mktemp('pruned')
    run_tool('analysis_struct', CONFIG, checkpoint, '--pruning-ratio', RATIO, '--output-dir',
             folder, *options('test_evaluator=None'))  # fmt: skip
    return [checkpoint, folder / 'vit_structured_pruned.pth', folder / 'vit_pruned.pth']


@pytest.fixture(scope='module')
def compared(run_tool, checkpoints, tmp_path_factory):
    """Folder of one comparison, and how it ended."""
    folder = tmp_path_factory.mktemp('compared') / 'new' / 'out'
    names = ('dense', 'slim, 40 % less', 'zeroed')
    ended = run_tool(COMPARE, CONFIG, *checkpoints, '--out', folder, '--labels', *names,
                     '--batch-size', 3, '--seconds', 0.3, *options())  # fmt: skip
    return folder, ended


@pytest.fixture(scope='module')
def report(compared) -> dict:
    return json.loads((compared[0] / 'compare.json').read_text())


def test_everything_is_there_and_nothing_else(compared):
    folder, ended = compared
    assert {path.name for path in folder.iterdir()} == {
        'compare.csv', 'compare.json', 'compare.png',
    }  # fmt: skip
    for part in ('slim, 40 %', 'accuracy/top1 ↑', 'latency', f'{folder}/compare.csv'):
        assert part in ended.out
    assert ended.errors == []


def test_counts(report, checkpoints):
    """Every tensor of this model is a parameter, so the file tells how many there are."""
    for model, path in zip(report['models'], checkpoints, strict=True):
        weights = load(path)['state_dict']
        assert model['params'] == sum(w.numel() for w in weights.values())
        assert model['weight_bytes'] == 4 * model['params']
        assert model['file_bytes'] == os.path.getsize(path) > model['weight_bytes']
        matrices = [
            w for n, w in weights.items() if w.dim() > 1 and not n.endswith(('token', 'embed'))
        ]
        zeros = sum(int((w == 0).sum()) for w in matrices) / sum(w.numel() for w in matrices)
        assert model['zeros'] == pytest.approx(zeros)
        assert model['latency_ms'] > 0
    dense, slim, masked = report['models']
    assert [m['structure'] for m in report['models']] == ['dense', 'slim', 'masked']
    assert RATIO <= 1 - slim['params'] / dense['params'] < RATIO + 0.01
    assert slim['flops'] < dense['flops'] == masked['flops']
    assert masked['zeros'] == pytest.approx(RATIO, abs=1e-3) and masked['params'] == dense['params']


def test_csv_says_what_json_says(compared, report):
    with open(compared[0] / 'compare.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for row, model in zip(rows, report['models'], strict=True):
        metrics = model.pop('metrics')
        assert set(metrics) == METRICS
        assert row == {k: '' if v is None else str(v) for k, v in (model | metrics).items()}
        model['metrics'] = metrics


def test_the_report_says_where_it_comes_from(report):
    assert report['config'] == CONFIG and '--batch-size' in report['command']
    assert 'batch 3, 1 thread(s)' in report['notes']['latency_ms']  # a flag and the config
    assert report['headline'] == {'accuracy/top1': 'max'}
    assert report['environment']['torch'] == torch.__version__


@pytest.mark.parametrize('index', range(3))
def test_metrics_are_those_of_the_test_tool(index, report, checkpoints, call_tool, tmp_path):
    named = options(f'experiment_name=compared_{index}')
    call_tool('test', CONFIG, checkpoints[index], '--work-dir', tmp_path / 'work', *named)
    (found,) = (tmp_path / 'work').glob('*/*.json')
    said = json.loads(found.read_text())
    assert report['models'][index]['metrics'] == {name: said[name] for name in METRICS}


def test_two_ranks_say_what_one_says(report, checkpoints, run_tool, tmp_path):
    out = tmp_path / 'out'
    run_tool(COMPARE, CONFIG, *checkpoints[1:], '--out', out, '--launcher', 'pytorch', '--eval',
             'accuracy', *options(), ranks=2)  # fmt: skip
    two = json.loads((out / 'compare.json').read_text())
    assert two['environment']['world_size'] == 2
    for model, other in zip(report['models'][1:], two['models'], strict=True):
        for key in ('metrics', 'params', 'flops', 'zeros'):
            assert model[key] == pytest.approx(other[key])
    folder = checkpoints[1].parent.name
    assert [m['label'] for m in two['models']] == [
        f'{folder}/vit_structured_pruned', f'{folder}/vit_pruned',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('flags', 'extra', 'note'),
    [
        (('--no-eval',), (), 'not asked for'),
        ((), ('test_dataloader=None',), 'skipped: the config has no test_dataloader'),
    ],
)
def test_without_metrics(flags, extra, note, checkpoints, call_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = call_tool(COMPARE, CONFIG, checkpoints[0], *flags, *options(*extra))
    assert ended.code == 0, ended.out
    report = json.loads((tmp_path / 'work_dirs/compare/compare.json').read_text())
    assert [m['metrics'] for m in report['models']] == [None]
    assert note in report['notes']['metrics'] and note in ended.out
    assert (tmp_path / 'work_dirs/compare/compare.png').exists()


ROWS = [
    ('{config} {ckpt} {folder}/gone.pth', 'gone.pth does not exist'),
    ('{config} {ckpt} {folder}/noise.pth', 'noise.pth'),
    ('{config} {ckpt} {folder}/other.pth', 'other.pth belongs to another model'),
    ('{config} {ckpt} {ckpt}', 'is given twice'),
    ('{config} {ckpt} {slim} --labels a', '--labels has 1 names for 2 checkpoints'),
    ('{config} {ckpt} {slim} --labels a a', "--labels names two checkpoints 'a'"),
    ('{config} {ckpt} {slim} --eval speed', '--eval speed is not a metric'),
    ('{config} {ckpt} --eval accuracy --no-eval', '--eval and --no-eval exclude each other'),
    ('{config} {ckpt} --out {folder}/other.pth/below', '--out'),
    ('{config} {ckpt} --seconds 0', "'0' is not a number of seconds above 0"),
    ('{config} {ckpt} --seconds nan', "'nan' is not a number of seconds"),
    ('{config} {ckpt} --batch-size 0', "'0' is not a whole number of at least 1"),
    ('{config} {ckpt} --num-threads two', "'two' is not a whole number"),
    ('{folder}/gone.py {ckpt}', 'gone.py does not exist'),
    ('{config}', 'what to compare is missing: checkpoints of the config'),
]


@pytest.mark.parametrize(('args', 'message'), ROWS, ids=[args[9:] for args, _ in ROWS])
def test_refused(args, message, checkpoints, call_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(torch.nn.Linear(3, 3).state_dict(), tmp_path / 'other.pth')
    (tmp_path / 'noise.pth').write_bytes(b'no checkpoint' * 99)
    before = sorted(tmp_path.rglob('*'))
    names = dict(config=CONFIG, ckpt=checkpoints[0], slim=checkpoints[1], folder=tmp_path)
    words = [word.format(**names) for word in args.split()]
    ended = call_tool(COMPARE, *words, *options())
    assert ended.code == 2, ended.out
    assert len(ended.errors) == 1, ended.err
    assert ended.errors[0].startswith('error: ') and message in ended.errors[0]
    assert sorted(tmp_path.rglob('*')) == before


def test_every_column_and_key_is_documented(report):
    text = (ROOT / 'docs/tools.md').read_text(encoding='utf-8')
    text = text.partition('## tools/compare.py\n')[2].partition('\n## ')[0]
    for key in {*report, *report['models'][0]} - {'metrics'}:
        assert f'`{key}`' in text, key

"""``tools/analysis_struct.py`` and ``train.py`` with a budget of quality, on a small ViT."""

import csv
import json

import pytest
import torch
from tool_runs import CONFIG, SMALL, options

TOOL = 'analysis_struct'
METRIC = CONFIG.replace('.py', '_metric.py')
DROP, TOLERANCE = 2.0, 0.05
GOAL = (f'prune_cfg.budget.max_drop={DROP}', f'prune_cfg.budget.tolerance={TOLERANCE}')


def search(folder) -> dict:
    return json.loads((folder / 'report.json').read_text())['search']


@pytest.fixture(scope='module')
def first(run_tool, checkpoint, tmp_path_factory):
    """A whole run on two ranks, and how it ended."""
    folder = tmp_path_factory.mktemp('search') / 'out'
    arguments = (METRIC, checkpoint, '--output-dir', folder, '--launcher', 'pytorch')
    return folder, run_tool(TOOL, *arguments, *options(*GOAL), ranks=2)


def top1(path) -> float:
    """Accuracy of a checkpoint's model on the test digits, in percent, by hand."""
    from projects.prune_plugin.checkpoints.model_loading import load_model
    from projects.prune_plugin.workflows.cli import read_config
    from projects.vit.datasets.digits import Digits

    model = load_model(read_config(CONFIG, SMALL[:3]), str(path)).model
    data = Digits('test', indices=128)
    images = torch.stack([data[i]['inputs'] for i in range(128)]).float()
    with torch.no_grad():
        answers = model.backbone((images / 255 - 0.2988) / 0.3237).argmax(1)
    return 100 * float((answers == torch.tensor(data.labels)).double().mean())


def test_the_model_written_is_one_that_holds(first, checkpoint, call_tool, tmp_path):
    folder, ended = first
    found, dense = search(folder), top1(checkpoint)
    assert found['dense']['metrics']['accuracy/top1'] == pytest.approx(dense)
    assert found['limit'] == pytest.approx(dense - DROP)
    rows = {row['ratio']: row for row in found['rows']}
    for row in rows.values():
        assert row['holds'] == (row['value'] >= dense - DROP - 1e-4)
    taken = rows[found['ratio']]
    if found['too_much'] is None:
        assert taken['ratio'] == found['high']
    else:
        assert 0 < found['too_much'] - taken['ratio'] <= TOLERANCE
    written = top1(folder / 'vit_structured_pruned.pth')
    assert written == pytest.approx(taken['value']) and written >= dense - DROP - 1e-4
    assert f'ratio {taken["ratio"]:.4g} it is' in ended.out
    trial = found['rows'][0]
    plain = ('prune_cfg.criterion.type=Taylor', 'prune_cfg.weight_level=False')
    arguments = (CONFIG, checkpoint, '--output-dir', tmp_path, '--pruning-ratio', trial['ratio'])
    assert call_tool(TOOL, *arguments, *options(*plain)).code == 0
    assert top1(tmp_path / 'vit_structured_pruned.pth') == pytest.approx(trial['value'])


def test_files(first):
    pytest.importorskip('matplotlib')
    folder, _ = first
    names = {path.name for path in folder.iterdir()}
    assert {'search.csv', 'search.json', 'search.png', 'report.html', 'vit_pruned.pth'} <= names
    with (folder / 'search.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [int(row['trial']) for row in rows] == list(range(1, len(rows) + 1))
    assert all(row['accuracy/top1'] == row['value'] for row in rows)
    report = json.loads((folder / 'report.json').read_text())
    assert report['asked'] == {'budget': 'params', 'ratio': report['search']['ratio']}
    assert report['achieved']['params'] >= report['search']['ratio']
    assert report['seconds']['search'] > 0


def test_training_begins_with_a_search_and_one_rank_decides_as_two(
    first, checkpoint, call_tool, tmp_path
):
    more = (*GOAL, f'load_from={checkpoint}', 'prune_cfg.weight_level=False')
    short = ('prune_cfg.recovery.epochs=1', 'prune_cfg.recovery.max_steps=1')
    ended = call_tool('train', METRIC, '--work-dir', tmp_path, *options(*more, *short))
    assert ended.code == 0, ended.err
    assert json.loads((tmp_path / 'report.json').read_text())['recovered']
    alone, both = search(tmp_path), search(first[0])
    for name in ('ratio', 'too_much', 'limit', 'high'):
        assert both[name] == pytest.approx(alone[name])
    for one, other in zip(alone['rows'], both['rows'], strict=True):
        assert one == other


@pytest.mark.parametrize(
    ('flags', 'more', 'message'),
    [
        (
            ['--pruning-ratio', '0.3'],
            (),
            'prune_cfg.budget.ratio=0.3 (or --pruning-ratio) does not',
        ),
        ([], ('test_dataloader=None',), 'no test_dataloader and test_evaluator'),
        ([], ('prune_cfg.budget.split=train',), "prune_cfg.budget.split is 'train'; valid are"),
        (['--meta'], (), "--meta: prune_cfg.budget.type 'metric' evaluates models"),
    ],
)
def test_bad_input(flags, more, message, checkpoint, call_tool, tmp_path):
    folder, model = tmp_path / 'out', [] if '--meta' in flags else [checkpoint]
    ended = call_tool(TOOL, METRIC, *model, '--output-dir', folder, *flags, *options(*more))
    assert ended.code == 2
    assert len(ended.errors) == 1 and message in ended.errors[0], ended.err
    assert not folder.exists()

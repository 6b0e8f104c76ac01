"""``tools/analysis_struct.py --ratios``: its points against single runs, resumed, kept, and drawn."""

import csv
import json
import re

import pytest
from tool_runs import CONFIG, options

TOOL = 'analysis_struct'
RATIOS = (0.5, 0.2)
SCHEDULE = ('--cfg-options', "prune_cfg.schedule=dict(type='Steps',ratios=[0.2])")


def arguments(checkpoint, folder, *more, ratios=RATIOS) -> list:
    """A whole command line."""
    return [
        CONFIG, checkpoint, '--output-dir', folder, '--ratios', *ratios, *more,
        *options('prune_cfg.weight_level=False'),
    ]  # fmt: skip


def curve(folder) -> dict:
    return json.loads((folder / 'curve.json').read_text())


@pytest.fixture(scope='module')
def drawn(run_tool, checkpoint, tmp_path_factory):
    """A curve of two methods, and how it ended."""
    folder = tmp_path_factory.mktemp('curve') / 'out'
    more = ('--baselines', 'random', '--keep', 'all')
    return folder, run_tool(TOOL, *arguments(checkpoint, folder, *more))


def test_points_are_those_of_single_runs(drawn, checkpoint, call_tool, tmp_path):
    folder, ended = drawn
    report = curve(folder)
    points = [(row['series'], row['ratio']) for row in report['rows']]
    names = ('L1 + Knapsack', 'Random + Knapsack')
    assert points == [(name, ratio) for name in names for ratio in sorted(RATIOS)]
    call_tool(TOOL, CONFIG, checkpoint, '--output-dir', tmp_path, '--pruning-ratio', 0.5,
              *options('prune_cfg.weight_level=False'))  # fmt: skip
    alone = json.loads((tmp_path / 'report.json').read_text())
    for row, stage in ((report['rows'][1], 'pruned'), (report['dense'], 'dense')):
        for key in ('params', 'flops', 'metrics'):
            assert row[key] == alone[stage][key]
    assert report['rows'][1]['removed'] == alone['achieved']['params']
    assert report['headline'] == alone['headline'] == {'accuracy/top1': 'max'}
    assert all(row['latency_ms'] and row['dense_latency_ms'] for row in report['rows'])
    with (folder / 'curve.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['series'] for row in rows] == ['dense', *(name for name, _ in points)]
    assert float(rows[2]['accuracy/top1']) == alone['pruned']['metrics']['accuracy/top1']
    assert 'Random + Knapsack at 0.5: ' in ended.out and str(folder / 'curve.png') in ended.out


def test_checkpoints_are_those_of_their_points(drawn, call_tool, tmp_path):
    folder, _ = drawn
    rows = curve(folder)['rows']
    assert len({row['checkpoint'] for row in rows}) == 4
    row = rows[0]
    ended = call_tool('test', CONFIG, row['checkpoint'], '--work-dir', tmp_path, *options())
    assert ended.code == 0, ended.out
    found = float(re.search(r'accuracy/top1: ([\d.]+)', ended.out)[1])
    assert found == pytest.approx(row['metrics']['accuracy/top1'], abs=1e-3)


def test_broken_off_and_gone_on_with(drawn, checkpoint, call_tool, tmp_path, counted):
    """Nothing is evaluated twice; the best of each ratio is kept, also when it is found again."""
    folder, more = tmp_path / 'out', ('--baselines', 'random')
    counted.limit = 4
    with pytest.raises(RuntimeError, match='broken off'):
        call_tool(TOOL, *arguments(checkpoint, folder, *more))
    counted.limit = None
    ended = call_tool(TOOL, *arguments(checkpoint, folder, *more))
    assert ended.code == 0 and len(counted) == len(set(counted)) == 5
    expected = {(r['series'], r['ratio']): r['metrics'] for r in curve(drawn[0])['rows']}
    for ratio in RATIOS:
        same = [row for row in curve(folder)['rows'] if row['ratio'] == ratio]
        assert [row['metrics'] for row in same] == [expected[r['series'], ratio] for r in same]
        best = max(same, key=lambda row: row['metrics']['accuracy/top1'])
        assert [bool(row['checkpoint']) for row in same] == [row is best for row in same]
    del counted[:]
    call_tool(TOOL, *arguments(checkpoint, folder, ratios=(0.2, 0.5, 0.6)))
    assert counted == ['L1 + Knapsack at 0.6']


def test_without_an_evaluation_sizes_are_drawn(checkpoint, call_tool, tmp_path):
    ended = call_tool(TOOL, *arguments(checkpoint, tmp_path), 'test_evaluator=None')
    rows = curve(tmp_path)['rows']
    assert ended.code == 0 and [row['metrics'] for row in rows] == [None, None]
    assert rows[0]['params'] > rows[1]['params'] and all(row['checkpoint'] for row in rows)
    assert (tmp_path / 'curve.png').stat().st_size > 5000


def test_several_curves_in_one_picture(drawn, call_tool, tmp_path):
    folder, _ = drawn
    file = folder / 'curve.json'
    ended = call_tool('compare', '--curves', file, file, '--labels', 'a', 'b', '--out', tmp_path)
    assert ended.code == 0 and (tmp_path / 'curves.png').stat().st_size > 5000
    with (tmp_path / 'curves.csv').open(newline='') as read:
        names = [row['series'] for row in csv.DictReader(read)]
    assert names[:3] == ['a: dense', 'a: L1 + Knapsack', 'a: L1 + Knapsack'] and len(names) == 10
    ended = call_tool('compare', '--curves', folder / 'curve.csv', '--out', tmp_path)
    assert ended.code == 2 and 'is no curve.json' in ended.out


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        (['--criteria', 'Best'], '--criteria Best is unknown; valid are '),
        (['--allocators', 'L1'], '--allocators L1 is unknown; valid are '),
        (['--ratios', '0.2', '0.999'], '--ratios 0.999: '),
        ([*SCHEDULE], 'take OneShot'),
    ],
)
def test_bad_input_writes_nothing(checkpoint, call_tool, tmp_path, more, said):
    line = arguments(checkpoint, tmp_path / 'out')
    place = line.index('--cfg-options')
    ended = call_tool(
        TOOL, *line[:place], *more, *([] if '--cfg-options' in more else line[place:])
    )
    assert ended.code == 2 and said in ended.out, ended.out
    assert not (tmp_path / 'out' / 'curve.json').exists()


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        (['--keep', 'all'], '--keep goes with --ratios'),
        (['--ratios', '0.1', '--fine-tune'], '--fine-tune does not go with --ratios'),
        (['--ratios', '0.1', '--sensitivity'], 'two analyses'),
        (['--ratios', '1.5'], 'fraction removed'),
    ],
)
def test_flags_that_do_not_go_together(more, said, capsys):
    import importlib.util

    from tool_runs import ROOT

    spec = importlib.util.spec_from_file_location('tool', ROOT / 'tools/analysis_struct.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(SystemExit) as left:
        module.parse([CONFIG, *more])
    assert left.value.code == 2 and said in capsys.readouterr().err

"""Tables, JSON and pictures."""

import csv
import io
import json
import math
import os
from dataclasses import replace

import pytest
import torch
from cases import BY_NAME
from rich.console import Console

from projects.prune_plugin import PruneState, RunReport, StructuredPruner, UserError, slim
from projects.prune_plugin.common.fileio import output_directory
from projects.prune_plugin.common.json_csv import write_csv, write_json
from projects.prune_plugin.structure.units import discover
from projects.prune_plugin.workflows.reports import (
    UnitTable,
    print_report,
    read_scores,
    tables,
    write_groups,
    write_plots,
)
from projects.prune_plugin.workflows.run_report import RecoveredStage, Stage

CASE = BY_NAME['vit']


def pruner(ratio: float = 0.4, **criterion) -> StructuredPruner:
    return StructuredPruner(
        CASE.units, criterion or dict(type='L1'), budget=dict(type='params', ratio=ratio)
    )


@pytest.fixture(scope='module')
def plan():
    return pruner().plan(CASE.dense())


def rows_of(path) -> list[dict]:
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def test_units_csv(tmp_path, plan):
    UnitTable(plan).write_tables(tmp_path)
    text = (tmp_path / 'units.csv').read_text()
    assert text.splitlines()[0] == 'layer_idx,group_type,group_idx,importance,cost,score,pruned'
    assert '\r' not in text
    rows = rows_of(tmp_path / 'units.csv')
    assert len(rows) == sum(group.size for group in plan.groups)
    scores = [float(row['score']) for row in rows]
    assert scores == sorted(scores)
    groups = {(g.layer_idx, g.kind): g for g in plan.groups}
    seen = set()
    for row in rows:
        key = (int(row['layer_idx']), row['group_type'])
        unit, group = int(row['group_idx']), groups[key]
        number = plan.groups.index(group)
        assert float(row['importance']) == float(plan.importance[number][unit])
        assert float(row['cost']) == float(plan.cost[number])
        assert float(row['score']) == pytest.approx(float(row['importance']) / float(row['cost']))
        assert row['pruned'] == str(int(unit not in plan.state.kept[group.name].tolist()))
        seen.add((*key, unit))
    assert len(seen) == len(rows)


def test_the_global_table_and_what_goes(tmp_path, plan, monkeypatch):
    monkeypatch.setattr(tables, 'ROWS', 100)  # several chunks, the last one smaller
    UnitTable(plan).write_tables(tmp_path)
    units = rows_of(tmp_path / 'units.csv')
    table = (tmp_path / 'global_group_table.csv').read_text()
    assert table.startswith('layer_idx,group_type,group_idx,importance,cost,score\n')
    assert rows_of(tmp_path / 'global_group_table.csv') == [
        {key: row[key] for key in row if key != 'pruned'} for row in units
    ]
    gone = [row for row in units if row.pop('pruned') == '1']
    assert rows_of(tmp_path / 'groups_to_prune.csv') == gone
    assert len(gone) == sum(len(plan.state.removed(g.name)) for g in plan.groups)


def test_names_that_csv_must_quote(tmp_path, plan):
    odd = {'a,"b"': plan.groups[0].name}
    groups = [replace(plan.groups[0], name='a,"b"', kind='x,y'), *plan.groups[1:]]
    kept = {g.name: plan.state.kept[odd.get(g.name, g.name)] for g in groups}
    state = PruneState({g.name: g for g in groups}, kept)
    UnitTable(replace(plan, scored=replace(plan.scored, groups=groups), state=state)).write_scores(
        tmp_path / 'scores.csv'
    )
    found = read_scores(tmp_path / 'scores.csv', groups)
    assert all(map(torch.equal, found, plan.importance))


def test_report_csv(tmp_path, plan):
    write_groups(plan, tmp_path / 'report.csv')
    rows = rows_of(tmp_path / 'report.csv')
    assert list(rows[0]) == ['name', 'layer_idx', 'kind', 'size', 'kept', 'kept_share']
    for row, group in zip(rows, plan.groups, strict=True):
        assert (row['name'], row['kind'], int(row['size'])) == (group.name, group.kind, group.size)
        assert int(row['kept']) == len(plan.state.kept[group.name])
        assert float(row['kept_share']) == pytest.approx(int(row['kept']) / group.size, abs=1e-6)


@pytest.mark.parametrize('criterion', ['L1', 'Random'])
def test_a_saved_table_gives_the_same_choice_at_any_ratio(tmp_path, criterion):
    saved = pruner(0.2, type=criterion).plan(CASE.dense())
    UnitTable(saved).write_scores(tmp_path / 'scores.csv')
    table = read_scores(tmp_path / 'scores.csv', saved.groups)
    assert all(map(torch.equal, table, saved.importance))
    for ratio in (0.1, 0.55):
        direct = pruner(ratio, type=criterion).plan(CASE.dense())
        from_table = pruner(ratio).plan(CASE.dense(), table=table)
        assert from_table.state.digest() == direct.state.digest()


def test_tables_number_units_of_the_dense_model(tmp_path, plan):
    slimmed = slim(CASE.dense(), plan.state)
    again = pruner(0.2).plan(slimmed)
    UnitTable(again, plan.state).write_scores(tmp_path / 'again.csv')
    for row in rows_of(tmp_path / 'again.csv'):
        assert int(row['group_idx']) in plan.state.kept[row['name']]
    found = read_scores(tmp_path / 'again.csv', again.groups, plan.state)
    assert all(map(torch.equal, found, again.importance))
    UnitTable(plan).write_scores(tmp_path / 'dense.csv')  # a dense table serves the slim model too
    groups, _ = discover(slimmed, CASE.finders())
    chosen = read_scores(tmp_path / 'dense.csv', groups, plan.state)
    for group, scores in zip(groups, chosen, strict=True):
        dense = plan.importance[[g.name for g in plan.groups].index(group.name)]
        assert torch.equal(scores, dense[plan.state.kept[group.name]])


def test_bad_tables_are_named(tmp_path, plan):
    path = tmp_path / 'scores.csv'
    UnitTable(plan).write_scores(path)
    good = path.read_text()
    lines = good.splitlines()
    first = lines[1].split(',')

    def refused(text: str, message: str) -> None:
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_scores(path, plan.groups)

    refused('a,b\n1,2\n', r'scores\.csv is not a score table; its columns must be name,layer_idx')
    refused('', 'is not a score table')
    refused('\n'.join([lines[0], *lines[2:]]), f'has no row for unit {first[3]} of {first[0]}')
    for value in ('nan', 'inf', 'much'):
        bad = ','.join([*first[:4], value, *first[5:]])
        refused('\n'.join([lines[0], bad, *lines[2:]]), 'has a malformed line 2:')
    refused('\n'.join([*lines, f'{first[0]},0']), 'has a malformed line')
    refused('\n'.join([*lines, lines[1]]), f'unit {first[3]} of {first[0]} stands there twice')
    with pytest.raises(UserError, match='gone.csv cannot be read: No such file'):
        read_scores(tmp_path / 'gone.csv', plan.groups)
    path.write_bytes(b'\xff\xfe\x00binary')
    with pytest.raises(UserError, match='scores.csv'):
        read_scores(path, plan.groups)


def test_json_has_no_nan(tmp_path):
    write_json({'a': math.nan, 'b': [math.inf, 1.5], 'c': {'d': (1, None)}}, tmp_path / 'a.json')
    text = (tmp_path / 'a.json').read_text()
    assert json.loads(text) == {'a': None, 'b': [None, 1.5], 'c': {'d': [1, None]}}
    assert text.endswith('\n') and os.listdir(tmp_path) == ['a.json']


def test_files_that_fail_half_way_leave_the_old_one(tmp_path):
    write_csv(['x'], [[1]], tmp_path / 'a.csv')

    def rows():
        yield [2]
        raise RuntimeError('half way')

    with pytest.raises(RuntimeError):
        write_csv(['x'], rows(), tmp_path / 'a.csv')
    assert (tmp_path / 'a.csv').read_text() == 'x\n1\n'
    with pytest.raises(TypeError):
        write_json({'a': object()}, tmp_path / 'a.csv')
    assert os.listdir(tmp_path) == ['a.csv']


def test_output_directories(tmp_path):
    with output_directory(tmp_path / 'a' / 'b') as folder:
        assert folder.is_dir()
    with pytest.raises(ZeroDivisionError), output_directory(tmp_path / 'c' / 'd'):
        raise ZeroDivisionError
    assert not (tmp_path / 'c').exists()
    with pytest.raises(ZeroDivisionError), output_directory(tmp_path / 'a'):
        raise ZeroDivisionError
    assert (tmp_path / 'a' / 'b').is_dir()  # what was there stays
    (tmp_path / 'file').write_text('')
    for bad in ('file', 'file/below'):
        with (
            pytest.raises(UserError, match=rf'--output-dir .*{bad} cannot be written'),
            output_directory(tmp_path / bad),
        ):
            pass


@pytest.fixture
def report(plan) -> RunReport:
    groups = [
        dict(name=g.name, kind=g.kind, layer_idx=g.layer_idx, size=g.size,
             kept=len(plan.state.kept[g.name]))
        for g in plan.groups
    ]  # fmt: skip
    return RunReport.from_dict(
        dict(
            asked=dict(budget='params', ratio=0.4),
            dense=dict(
                params=1000, flops=5_000_000, latency_ms=2.0, metrics=dict(top1=98.0, top5=99.5)
            ),
            pruned=dict(
                params=600, flops=3_000_000, latency_ms=1.5, metrics=dict(top1=61.5, top5=90.0)
            ),
            achieved=dict(params=0.4, flops=0.4, latency=0.25, zeros=None),
            headline=dict(top1='max'),
            groups=groups,
        )
    )


def shown(report) -> str:
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=100))
    return stream.getvalue()


def test_the_console_says_what_the_report_says(report):
    text = shown(report)
    for part in ('0.4 of params removed', '1,000', '5,000,000', '40.00 %', '25.00 %', '98', '61.5'):
        assert part in text
    assert 'top5' not in text  # not among the metrics worth looking at first
    report.dense, report.pruned = Stage(params=1000), Stage(params=600)
    report.recovered = RecoveredStage(params=600)
    report.achieved.update(flops=None, latency=None, zeros=0.4)
    text = shown(report)
    assert 'recovered' in text and 'zeros' in text and 'weights in *_pruned.pth' in text
    report.groups, report.removed_layers = [], ['blocks.0', 'blocks.4']
    assert 'parameters' in shown(report) and 'whole layers' in shown(report)


@pytest.mark.parametrize(
    ('budget', 'flops', 'advised'),
    [
        ('params', 0.18, True),
        ('params', 0.22, False),
        ('flops', 0.18, False),
        ('params', None, False),
    ],
)
def test_a_model_that_is_smaller_but_hardly_faster_gets_advice(report, budget, flops, advised):
    """40 % of the parameters went, so 20 % of the FLOPs are where it begins."""
    report.asked['budget'], report.achieved['flops'] = budget, flops
    text = ' '.join(shown(report).split())
    words = '40 % of the parameters are gone, but only 18 % of the FLOPs'
    assert (words in text) is ("budget.type='flops'" in text) is advised


def test_plots(tmp_path, report):
    pytest.importorskip('matplotlib')
    written = write_plots(report, tmp_path)
    assert [path.name for path in written] == ['kept_share.png', 'metrics_params.png']
    assert all(path.read_bytes().startswith(b'\x89PNG') for path in written)
    report.dense.metrics = report.pruned.metrics = None
    report.headline = {}
    assert [path.name for path in write_plots(report, tmp_path)] == ['kept_share.png']
    report.groups = []
    assert write_plots(report, tmp_path) == []

"""The record of ``report.json``: there and back, files of other versions, and its summary as CSV."""

import csv
import json
from dataclasses import fields

import pytest

from projects.prune_plugin import BudgetResult, RunReport
from projects.prune_plugin.common.json_csv import to_json_data
from projects.prune_plugin.workflows.reports import write_summary
from projects.prune_plugin.workflows.reports.summary import SUMMARY_COLUMNS, summary
from projects.prune_plugin.workflows.round_record import Row
from projects.prune_plugin.workflows.run_report import (
    OPTIONAL,
    STAGES,
    GroupRow,
    MaskedStage,
    MemoryRow,
    RecoveredStage,
    Stage,
    StreamedRun,
)
from projects.prune_plugin.workflows.save_results import read_report, write_record

#: As of an earlier version: no budget, no headline, no uncovered, and keys that are not known now.
OLD = {
    'asked': {'budget': 'params', 'ratio': 0.4},
    'dense': {'params': 1000, 'flops': 5000, 'latency_ms': 2.0, 'metrics': {'top1': 98.0}},
    'pruned': {'params': 600, 'flops': 3000, 'latency_ms': 1.5, 'metrics': None, 'size_mb': 3},
    'achieved': {'params': 0.4, 'flops': 0.4, 'latency': 0.25, 'zeros': None},
    'groups': [{'name': 'a', 'kind': 'mlp', 'layer_idx': 0, 'size': 8, 'kept': 4}],
    'seconds': {'load': 1.0},
    'checkpoint': 'dense.pth',
    'seed': 3,
}


@pytest.fixture
def full() -> RunReport:
    """With everything that a report may have."""
    return RunReport(
        asked={'budget': 'flash', 'ratio': 0.3},
        dense=Stage(1000, 5000, 2.0, {'top1': 98.0}),
        pruned=Stage(600, 3000, 1.5, {'top1': 61.5}),
        masked=MaskedStage(1000, 5000, 2.0, {'top1': 71.5}, zeros=0.4),
        recovered=RecoveredStage(
            600, 3000, 1.5, {'top1': 97.0}, 'retrain', 2, 'D/latest.pth', 'structured'
        ),
        rounds=[Row(1, 0.2, 0.2001, {'top1': 80.0})],
        achieved={'params': 0.4, 'flops': 0.4, 'latency': 0.25, 'zeros': 0.4, 'flash': 0.3125},
        budget=BudgetResult('flash', 0.3, 0.3125, 1600.0, 1100.0, 'B'),
        search={'metric': 'top1'},
        headline={'top1': 'max'},
        groups=[GroupRow('a', 'mlp', 0, 8, 4)],
        scores='random',
        memory=[MemoryRow('dense', 'DDP', 1, 1.0, 1.0, 2.0, 4.0)],
        streamed=StreamedRun(2, 800, 600, None, 5000, 1400),
    )


def rows_of(report: RunReport, folder) -> dict[str, dict[str, str]]:
    write_summary(report, folder / 'summary.csv')
    with open(folder / 'summary.csv', newline='') as file:
        return {row['quantity']: row for row in csv.DictReader(file)}


def test_there_and_back(full, tmp_path):
    data = full.to_dict()
    assert list(data) == [entry.name for entry in fields(RunReport)]
    assert json.loads(json.dumps(data)) == data
    assert RunReport.from_dict(data) == full
    write_record(full, tmp_path)
    assert read_report(tmp_path) == full
    assert read_report(tmp_path / 'nowhere') is None


def test_keys_that_do_not_apply_are_left_out():
    data = RunReport().to_dict()
    assert not data.keys() & set(OPTIONAL)
    assert data['checkpoint'] is None and data['dense']['metrics'] is None
    assert RunReport.from_dict(data) == RunReport() == RunReport.from_dict({})


def test_a_file_of_an_earlier_version_is_read():
    report = RunReport.from_dict(OLD)
    assert report.pruned == Stage(600, 3000, 1.5, None)
    assert report.groups == [GroupRow('a', 'mlp', 0, 8, 4)] and report.budget is None
    data = report.to_dict()
    for key in OLD.keys() - {'pruned', 'seed'}:
        assert data[key] == OLD[key]
    assert list(report.stages()) == ['dense', 'pruned']
    assert [row.name for row in summary(report)] == ['params', 'flops', 'latency', 'mlp units']


def test_a_report_with_infinite_figures_is_read(full):
    full.pruned.metrics = {'ppl': float('inf')}
    assert RunReport.from_dict(to_json_data(full.to_dict())).pruned.metrics == {'ppl': None}


def test_summary(full, tmp_path):
    rows = rows_of(full, tmp_path)
    names = ['params', 'flops', 'latency', 'flash', 'zeros', 'mlp units', 'top1']
    assert list(rows) == names and tuple(rows['params']) == SUMMARY_COLUMNS
    cells = {name: list(row.values())[1:] for name, row in rows.items()}
    assert cells['params'] == ['', '', '0.4', '1000', '600', '1000', '600']
    assert cells['latency'] == ['ms', '', '0.25', '2', '1.5', '2', '1.5']
    assert cells['flash'] == ['B', '0.3', '0.3125', '1600', '1100', '1600', '1100']
    assert cells['zeros'] == ['', '', '0.4', '', '', '', '']
    assert cells['mlp units'] == ['', '', '0.5', '8', '4', '8', '4']
    assert cells['top1'] == ['', '', '', '98', '61.5', '71.5', '97']


def test_summary_without_masked_and_recovered(full, tmp_path):
    full.masked = full.recovered = None
    row = rows_of(full, tmp_path)['params']
    assert [row[stage] for stage in STAGES] == ['1000', '600', '', '']


def test_the_weight_level_model_has_not_lost_the_budgets_quantity(full, tmp_path):
    """Beside a slim model; by itself it has."""
    full.recovered.trained = 'unstructured'
    row = rows_of(full, tmp_path)['flash']
    assert [row[stage] for stage in STAGES] == ['1600', '1100', '1600', '1600']
    full.groups, full.masked = [], None
    row = rows_of(full, tmp_path)['flash']
    assert [row[stage] for stage in STAGES] == ['1600', '1100', '', '1100']


def test_what_was_counted_or_timed_goes_before_the_budgets_own(full, tmp_path):
    full.asked, full.budget = {'budget': 'latency', 'ratio': 0.2}, BudgetResult(
        'latency', 0.2, 0.22, 2.1, 1.6, 'ms'
    )  # fmt: skip
    row = rows_of(full, tmp_path)['latency']
    assert (row['asked'], row['achieved'], row['dense']) == ('0.2', '0.25', '2')
    full.achieved['latency'] = None  # a dry run: as predicted
    row = rows_of(full, tmp_path)['latency']
    assert (row['asked'], row['achieved'], row['dense']) == ('0.2', '0.22', '2.1')

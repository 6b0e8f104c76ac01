"""docs/report.md is what `make docs` writes now: every key of report.json, from the dataclasses."""

import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path

from test_docs import DOCS, bare, rows

from projects.prune_plugin.workflows.run_report import STAGES, RunReport

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'tools' / 'docs'))
report_schema = import_module('report_schema')


def test_the_page_is_what_the_command_writes():
    assert report_schema.page() == (DOCS / 'report.md').read_text(encoding='utf-8'), (
        'docs/report.md is older than the dataclasses: run make docs'
    )


def test_every_field_has_a_row():
    """By the tables themselves, whatever writes them."""
    page = (DOCS / 'report.md').read_text(encoding='utf-8')
    for record in report_schema.RECORDS:
        _, _, text = page.partition(f'\n## {record.__name__}\n')
        table = rows(text, 'key', 'type', 'meaning')
        assert [bare(key) for key, *_ in table] == [entry.name for entry in fields(record)]
        assert all(kind and meaning for _, kind, meaning in table)
    assert set(STAGES) <= {entry.name for entry in fields(RunReport)}

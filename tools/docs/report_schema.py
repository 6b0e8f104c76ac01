"""Write docs/report.md from the dataclasses of the report: every key of report.json."""

import sys
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from docstrings import parse  # noqa: E402

from projects.prune_plugin.workflows import round_record, run_report  # noqa: E402

PAGE = ROOT / 'docs' / 'report.md'
HEADER = """# The report

Written by `make docs` from the dataclasses of the report; don't edit it. What `report.json` holds, key by
key: the main object first, then those inside it. Which tools write the file, and the tables beside it, is
said in [tools.md](tools.md#toolsanalysis_structpy).

Numbers that aren't finite are null. An earlier version's file may lack keys, a later one's may have more:
what is there keeps its name and its meaning. `absent`: the key is only there where it applies. `search` has
the keys of [search.json](tools.md#search). In Python, `PruneResult.report` is the same as a record, with
the keys as attributes; `RunReport.from_dict` makes one of the file's content.
"""
#: What the types are called in JSON.
NAMES = {
    int: 'integer',
    float: 'number',
    str: 'text',
    bool: 'boolean',
    Any: 'any',
    NoneType: 'null',
}
RECORDS = (
    run_report.RunReport,
    run_report.Stage,
    run_report.MaskedStage,
    run_report.RecoveredStage,
    run_report.BudgetResult,
    run_report.GroupRow,
    run_report.WeightRow,
    round_record.Row,
    run_report.MemoryRow,
    run_report.StreamedRun,
)


def type_name(annotation: Any, optional: bool = False) -> str:
    """A field's type in JSON's words; records are links to their tables.

    Args:
        annotation: The field's.
        optional: Whether the key is left out where its value is None.
    """
    if is_dataclass(annotation):
        return f'[{annotation.__name__}](#{annotation.__name__.lower()})'
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is UnionType:
        return ' or '.join('absent' if optional and t is NoneType else type_name(t) for t in inner)
    if origin is list:
        return f'list of {type_name(inner[0])}'
    if origin is dict:
        entry = type_name(inner[1])
        return f'object of {f"({entry})" if " or " in entry else entry}'
    return NAMES[annotation]


def rows(record: type) -> Iterator[tuple[str, str, str]]:
    """Key, type and meaning of every field of a record.

    Raises:
        ValueError: a field that the docstring says nothing about.
    """
    bases = [parse(base.__doc__).arguments for base in reversed(record.__mro__)]
    meanings = {name: text for base in bases for name, text in base.items()}
    main = record is run_report.RunReport
    entry: Field
    for entry in fields(record):
        if entry.name not in meanings:
            raise ValueError(f'the docstring of {record.__name__} does not tell of {entry.name}')
        optional = main and entry.name in run_report.OPTIONAL
        meaning = meanings[entry.name].replace('None', 'null')
        yield f'`{entry.name}`', type_name(entry.type, optional), meaning


def page() -> str:
    """The whole page."""
    parts = [HEADER.rstrip()]
    for record in RECORDS:
        lines = ['| key | type | meaning |', '|---|---|---|']
        lines += ['| ' + ' | '.join(row) + ' |' for row in rows(record)]
        parts += [f'## {record.__name__}', *parse(record.__doc__).text, '\n'.join(lines)]
    return '\n\n'.join(parts) + '\n'


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding='utf-8')
    print(f'{PAGE.relative_to(ROOT)}: {len(RECORDS)} tables')


if __name__ == '__main__':
    main()

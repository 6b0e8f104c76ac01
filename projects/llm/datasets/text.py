"""Rows of text: from local files, from the Hugging Face hub, or from Python's documentation."""

import glob
import gzip
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from projects.prune_plugin.common.errors import DataNotFoundError, UserError

from ..models.sources import HUB_TIMEOUT, reason

#: Our names of splits, and the hub's.
SPLITS = {'train': 'train', 'valid': 'validation', 'test': 'test'}
ROWS = ('lines', 'files')
KEYS = ('files', 'rows', 'column', 'hub')
HUB_KEYS = ('path', 'name', 'data_files', 'split')
TABLES = ('.jsonl', '.json', '.parquet')
PYDOC = 'pydoc'
EXAMPLE = "dict(files='data/*.txt'), dict(hub=dict(path='Salesforce/wikitext')) or 'pydoc'"


def check_source(source: Any, split: str) -> None:
    """Raise :class:`UserError` unless ``source`` and ``split`` may stand in a config."""
    if split not in SPLITS:
        raise UserError(f'split={split!r} is unknown; valid are {", ".join(SPLITS)}')
    if source == PYDOC:
        return
    if not isinstance(source, Mapping) or not (source.get('files') or source.get('hub')):
        raise UserError(f'source={source!r} is not valid; give {EXAMPLE}')
    for where, given, valid in (
        ('source', source, KEYS),
        ('source.hub', source.get('hub') or {}, HUB_KEYS),
    ):
        if not isinstance(given, Mapping):
            raise UserError(f'{where}={given!r} must be a dict')
        unknown = [key for key in given if key not in valid]
        if unknown:
            raise UserError(f'{where}.{unknown[0]} is not a key; valid are {", ".join(valid)}')
    if source.get('rows', 'files') not in ROWS:
        raise UserError(f'source.rows={source["rows"]!r} is unknown; valid are {", ".join(ROWS)}')


def read_rows(
    source: str | Mapping, split: str, data_root: str, max_rows: int | None = None
) -> list[str]:
    """The rows of a split, local files being looked for first.

    Args:
        source: ``'pydoc'``, or a dict with ``files``, ``hub`` or both; see ``TokenWindows``.
        split: 'train', 'valid' or 'test'.
        data_root: What relative ``files`` are relative to.
        max_rows: Take the first so many; None: all.

    Raises:
        DataNotFoundError: there are no such files, and the hub can't give them.
        UserError: they can't be read.
    """
    if source == PYDOC:
        return list(islice(documentation(), max_rows))
    files = local_files(source, split, data_root)
    if files:
        rows = (row for file in files for row in rows_of(file, source))
        return list(islice(rows, max_rows))
    if source.get('hub'):
        return hub_rows(source, split, data_root, max_rows)
    raise DataNotFoundError(
        f'source.files={files_of(source, split)!r} under data_root={data_root!r}: there is no such '
        f'file for the split {split!r}'
    )


def documentation() -> Iterator[str]:
    """Python's own documentation: some 700 kB of English that is always there."""
    from pydoc_data.topics import topics

    return (topics[name] for name in sorted(topics))


def files_of(source: Mapping, split: str) -> Any:
    """What ``source.files`` says of a split."""
    files = source.get('files')
    return files.get(split) if isinstance(files, Mapping) else files


def local_files(source: Mapping, split: str, data_root: str) -> list[Path]:
    """The files of a split that are there, in order; all of those in a folder, sorted.

    Raises:
        DataNotFoundError: some are there, and some are not.
    """
    named = files_of(source, split)
    named = [named] if isinstance(named, str) else list(named or [])
    found: list[list[Path]] = []
    for name in named:
        path = Path(data_root).expanduser() / Path(name).expanduser()
        if path.is_dir():
            found.append(sorted(f for f in path.rglob('*') if f.is_file() and f.name[0] != '.'))
        else:
            found.append([Path(match) for match in sorted(glob.glob(str(path)))])
    missing = [name for name, files in zip(named, found, strict=True) if not files]
    if missing and len(missing) < len(named):
        raise DataNotFoundError(f'source.files: {missing[0]} is not in data_root={data_root!r}')
    return [file for files in found for file in files]


def rows_of(file: Path, source: Mapping) -> Iterator[str]:
    """The rows of one file: of a table its text column, else its lines, or the whole file.

    Of lines, the blank ones become empty and the others keep their line break, as in the hub's
    version of WikiText.

    Raises:
        UserError: the file can't be read, or has no such column.
    """
    column = source.get('column', 'text')
    kind = Path(file.name.removesuffix('.gz')).suffix
    try:
        if kind == '.parquet':
            import pyarrow.parquet

            yield from pyarrow.parquet.read_table(file, columns=[column])[column].to_pylist()
            return
        with (gzip.open if file.suffix == '.gz' else open)(file, 'rt', encoding='utf-8') as lines:
            if kind in TABLES:
                yield from (json.loads(line)[column] for line in lines if line.strip())
            elif source.get('rows', 'files') == 'lines':
                yield from (line if line.strip() else '' for line in lines)
            else:
                yield lines.read()
    except (OSError, EOFError, ValueError, KeyError, TypeError) as err:
        said = f'column {column!r}' if kind in TABLES else 'UTF-8 text'
        raise UserError(f'{file} cannot be read as rows of {said}: {reason(err)}') from err


def hub_rows(source: Mapping, split: str, data_root: str, max_rows: int | None) -> list[str]:
    """The rows of a data set on the hub, or in its cache.

    Raises:
        DataNotFoundError: it can't be had.
        UserError: it has no such column.
    """
    hub, column = source['hub'], source.get('column', 'text')
    path = hub['path']
    where = f'source.hub.path={path!r}'
    files = files_of(source, split)
    if files:
        where = f'{files!r} is not in data_root={data_root!r}, and {where}'
    try:
        import datasets
    except ImportError as err:
        raise DataNotFoundError(
            f'{where} needs the package datasets: pip install datasets'
        ) from err
    try:
        if not is_cached(path):
            from huggingface_hub import HfApi

            HfApi().dataset_info(path, timeout=HUB_TIMEOUT)  # answers soon, and says why not
        data_files = hub.get('data_files')
        table = datasets.load_dataset(
            path,
            hub.get('name'),
            split=(hub.get('split') or SPLITS)[split] if data_files is None else 'train',
            data_files=data_files[split] if isinstance(data_files, Mapping) else data_files,
            streaming=max_rows is not None,
        )
    except Exception as err:  # hub clients raise anything from OSError to their own HTTP errors
        raise DataNotFoundError(
            f'{where} cannot be had from the Hugging Face hub ({reason(err)}); name local files'
        ) from err
    if table.column_names and column not in table.column_names:
        raise UserError(
            f'source.column={column!r}: {path} has the columns {", ".join(table.column_names)}'
        )
    return [row[column] for row in (table if max_rows is None else table.take(max_rows))]


def is_cached(path: str) -> bool:
    """Whether ``datasets`` has prepared this data set before."""
    import datasets

    return (Path(datasets.config.HF_DATASETS_CACHE) / path.replace('/', '___').lower()).is_dir()

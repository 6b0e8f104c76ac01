"""docs/api.md lists the public names of the engine, and the docs use no others."""

import json
import re
from inspect import signature

import pytest
from test_docs import DOCS, PAGES, cells, run_snippets

import projects.prune_plugin as engine

PAGE = (DOCS / 'api.md').read_text(encoding='utf-8')
#: Written from the code: what it quotes there may be private.
GENERATED = {'reference.md', 'licenses.md'}


def listed() -> list[tuple[str, list[str]]]:
    """Names of the tables, each with the words of the column ``arguments``."""
    header: list[str] = []
    found = []
    for line in PAGE.splitlines():
        row = cells(line) if line.startswith('|') else []
        if row and row[0] == 'name':
            header = row
        elif row and not row[0].startswith('---'):
            words = re.findall(r'\w+', row[1]) if header[1] == 'arguments' else []
            found.append((row[0].strip('`'), words))
    return found


def test_every_public_name_is_listed_once_and_no_other():
    names = [name for name, _ in listed()]
    assert sorted([*names, '__version__']) == sorted(engine.__all__)
    assert '`__version__`' in PAGE
    assert all(hasattr(engine, name) for name in engine.__all__)


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_snippets(DOCS / 'api.md')
    assert engine.load_checkpoint('slim.pth')['meta'].keys() == {'prune_state', 'prune_seal'}


@pytest.mark.parametrize('name, words', [row for row in listed() if row[1]])
def test_arguments_are_those_of_the_signature(name, words):
    parameters = list(signature(getattr(engine, name)).parameters)
    assert set(words) <= set(parameters)
    assert words == sorted(words, key=parameters.index)


def code_of(path) -> str:
    """A page's text; of a notebook, that of all its cells."""
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.ipynb':
        return '\n'.join(''.join(cell['source']) for cell in json.loads(text)['cells'])
    return text


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_no_page_imports_from_inside_the_engine(page):
    """``projects.prune_plugin`` is followed by nothing deeper; its attributes may be."""
    if page.name in GENERATED:
        return
    text = code_of(page)
    deep = re.findall(r'(?:from|import) +projects\.prune_plugin\.[\w.]+', text)
    named = re.findall(r'`projects\.prune_plugin\.([\w.]+)`', text)
    assert not deep and not [n for n in named if n not in engine.__all__]

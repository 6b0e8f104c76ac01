"""``tools/create_data.py wikitext2``: what it copies, downloads, keeps and refuses."""

import hashlib

import pytest

pytest.importorskip('transformers')

from projects.llm.datasets import wikitext2  # noqa: E402

TOOL = 'create_data'
TEXTS = {split: f' \n = {split} = \n \n Some text . \n'.encode() for split in wikitext2.RELEASE}


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A folder with a release of three small files."""
    release = {s: (4, hashlib.sha256(text).hexdigest()) for s, text in TEXTS.items()}
    monkeypatch.setattr(wikitext2, 'RELEASE', release)
    folder = tmp_path / 'release' / 'wikitext-2-raw'
    folder.mkdir(parents=True)
    for split, text in TEXTS.items():
        (folder / f'wiki.{split}.raw').write_bytes(text)
    return folder


@pytest.fixture
def wikitext(call_tool, tmp_path):
    def call(*more):
        return call_tool(TOOL, 'wikitext2', '--out', tmp_path / 'out', *more)

    return call


def written(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize('nested', [True, False])
def test_copies_a_folder(wikitext, source, tmp_path, nested):
    ended = wikitext('--source', source.parent if nested else source)
    assert ended.code == 0, ended.out
    assert written(tmp_path / 'out') == {f'wiki.{s}.raw': text for s, text in TEXTS.items()}
    assert '--anew writes it again' in wikitext().out
    assert 'written' in wikitext('--source', source, '--anew').out


def test_train_may_be_missing(wikitext, source, tmp_path):
    (source / 'wiki.train.raw').unlink()
    ended = wikitext('--source', source)
    assert ended.code == 0 and 'has no train' in ended.out
    assert len(written(tmp_path / 'out')) == 2


def test_the_hub_gives_the_same_bytes(wikitext, source, tmp_path, monkeypatch):
    def rows(spec, split, *rest):
        lines = TEXTS[split].decode().splitlines(keepends=True)
        return [line if line.strip() else '' for line in lines]

    monkeypatch.setattr(wikitext2, 'hub_rows', rows)
    assert wikitext().code == 0
    assert written(tmp_path / 'out') == {f'wiki.{s}.raw': text for s, text in TEXTS.items()}


def test_what_is_refused(wikitext, source, tmp_path):
    assert 'has no wiki.valid.raw' in wikitext('--source', tmp_path).err
    (source / 'wiki.test.raw').write_bytes(TEXTS['test'] + b'more\n')
    assert 'has 5 lines, and the test split of WikiText-2 raw has 4' in (
        wikitext('--source', source).err
    )
    (source / 'wiki.test.raw').write_bytes(TEXTS['test'].replace(b'Some', b'<unk>'))
    ended = wikitext('--source', source)
    assert ended.code == 2 and 'its SHA-256 differs' in ended.err
    assert not (tmp_path / 'out').exists()

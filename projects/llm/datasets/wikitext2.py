"""WikiText-2 raw in a folder: copied or downloaded, and checked."""

import hashlib
from pathlib import Path

from mmengine import dist
from mmengine.logging import print_log

from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.common.fileio import atomic_write, output_directory

from .text import hub_rows

HUB = dict(hub=dict(path='Salesforce/wikitext', name='wikitext-2-raw-v1'))
BLANK = ' \n'  # what the release has where the hub has an empty row
#: Lines of each file, and where known the SHA-256 of its bytes.
RELEASE = {
    'train': (36718, None),
    'valid': (3760, '4cd0f6876d07a413aa911261ff6d363c72d757d47f0fdd6015702014c89cb9c7'),
    'test': (4358, '173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08'),
}
NEEDED = ('valid', 'test')


def prepare_wikitext2(out: str, source: str | None = None, anew: bool = False) -> None:
    """Write ``wiki.{train,valid,test}.raw``, each line a row as in the original release.

    Args:
        out: The folder to write.
        source: A folder that has the files, or a folder ``wikitext-2-raw`` with them; train may be
            missing there. None: from the Hugging Face hub.
        anew: Write them even where they are.

    Raises:
        UserError: they can't be had, or aren't those of the release.
    """
    folder = Path(out)
    there = {s: folder / name_of(s) for s in RELEASE if (folder / name_of(s)).is_file()}
    if set(NEEDED) <= there.keys() and not anew and (source or len(there) == len(RELEASE)):
        for split, file in there.items():
            check(split, read(file), str(file))
        print_log(f'{out} holds WikiText-2: {", ".join(there)}; --anew writes it again', 'current')
        return
    texts = copied(source) if source else downloaded()
    if not dist.is_main_process():
        return
    with output_directory(folder, '--out'):
        for split, text in texts.items():
            with atomic_write(folder / name_of(split), 'wb') as file:
                file.write(text)
    missing = [split for split in RELEASE if split not in texts]
    more = f'; {source} has no {", ".join(missing)}' if missing else ''
    print_log(f'{out}: {", ".join(map(name_of, texts))} written{more}', 'current')


def name_of(split: str) -> str:
    """The release's file of a split."""
    return f'wiki.{split}.raw'


def read(file: Path) -> bytes:
    """A file's bytes."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f'{file} cannot be read ({error.strerror})') from error


def copied(source: str) -> dict[str, bytes]:
    """The splits that a folder has, checked."""
    root = Path(source).expanduser()
    folders = [root, root / 'wikitext-2-raw']
    found = {s: f / name_of(s) for f in folders for s in RELEASE if (f / name_of(s)).is_file()}
    missing = [name_of(split) for split in NEEDED if split not in found]
    if missing:
        raise UserError(f'--source {source} has no {missing[0]}; name the folder with wiki.*.raw')
    texts = {split: read(found[split]) for split in RELEASE if split in found}
    for split, text in texts.items():
        check(split, text, str(found[split]))
    return texts


def downloaded() -> dict[str, bytes]:
    """All splits from the hub, checked."""
    texts = {}
    for split in RELEASE:
        rows = hub_rows(HUB, split, '', None)
        texts[split] = ''.join(row or BLANK for row in rows).encode()
        check(split, texts[split], f"the hub's {HUB['hub']['path']}")
    return texts


def check(split: str, text: bytes, where: str) -> None:
    """Raise :class:`UserError` unless ``text`` is that split of the release."""
    lines, digest = RELEASE[split]
    found = text.count(b'\n')
    if found != lines:
        raise UserError(
            f'{where} has {found} lines, and the {split} split of WikiText-2 raw has {lines}'
        )
    if digest and hashlib.sha256(text).hexdigest() != digest:
        raise UserError(
            f'{where} is not the {split} split of WikiText-2 raw: its SHA-256 differs (the version '
            'with <unk> for rare words, or other line ends?)'
        )

"""Run the notebooks of docs/tutorials and keep what they show, without traces of this machine."""

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'docs' / 'tutorials'
TIMEOUT = 600
KERNEL = {
    'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'},
    'language_info': {'name': 'python'},
}


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Run a notebook in a fresh kernel of this Python.

    Args:
        path: The notebook; the file isn't changed.
        folder: The kernel's working directory, and where the notebook's temporary folders go.

    Returns:
        The notebook with its outputs, cleaned.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    book = nbformat.read(path, as_version=4)
    book.metadata = nbformat.from_dict(KERNEL)
    environment = {
        **os.environ,
        'PYTHONPATH': str(ROOT),
        'TMPDIR': str(folder),
        'HF_HUB_OFFLINE': '1',
        'MPLBACKEND': 'module://matplotlib_inline.backend_inline',
    }
    client = NotebookClient(
        book,
        timeout=TIMEOUT,
        kernel_name='python3',
        extra_arguments=['--IPKernelApp.log_level=ERROR'],
        resources={'metadata': {'path': str(folder)}},
    )
    client.execute(env=environment)
    return cleaned(book, folder)


def cleaned(book: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """A notebook without logs, progress bars, times of execution, and paths of this machine."""
    book.metadata = nbformat.from_dict(KERNEL)
    for cell in book.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type != 'code':
            continue
        cell.outputs = [out for out in cell.outputs if is_result(out)]
        for out in cell.outputs:
            if 'text' in out:
                out.text = anonymous(out.text, folder)
            data = out.get('data', {})
            data.update(
                {
                    kind: anonymous(value, folder)
                    for kind, value in data.items()
                    if kind.startswith('text/')
                }
            )
    return book


def is_result(out: nbformat.NotebookNode) -> bool:
    """Whether an output is neither a log nor a progress bar."""
    bar = out.output_type == 'display_data' and 'image/png' not in out.data
    return not bar and out.get('name') != 'stderr'


def anonymous(text: str, folder: Path) -> str:
    """A text in which the project's folder is ``.`` and temporary ones are ``work``."""
    text = re.sub(re.escape(str(folder)) + r'/tmp\w+', 'work', text)
    for path, name in (
        (folder, 'work'),
        (ROOT, '.'),
        (Path(sys.prefix), '.venv'),
        (Path.home(), '~'),
    ):
        text = text.replace(str(path), name)
    return text


def main() -> None:
    """Run them and write them back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('names', nargs='*', help='notebooks without their ending; default: all')
    args = parser.parse_args()
    for path in sorted(FOLDER.glob('*.ipynb')):
        if args.names and path.stem not in args.names:
            continue
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            book = execute(path, Path(folder))
        nbformat.write(book, path)
        print(f'{path.relative_to(ROOT)}: {time.perf_counter() - start:.0f} s', flush=True)


if __name__ == '__main__':
    main()

"""What the demos share: run tools as a user would, and don't do again what was done."""

import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def call(*arguments: str) -> None:
    """Run a tool as a user would, showing the command; end the demo if it fails."""
    print(f'\n$ python {shlex.join(arguments)}', flush=True)
    code = subprocess.run([sys.executable, *arguments], cwd=ROOT).returncode
    if code:
        sys.exit(code)


def once(folder: Path, anew: bool, *arguments: str) -> bool:
    """:func:`call`, unless it has been done into ``folder`` by the very same command.

    Args:
        folder: What the command fills; a file ``done`` in it keeps the command.
        anew: Do it in any case.
        *arguments: The command.

    Returns:
        Whether it was done now.
    """
    done = ROOT / folder / 'done'
    if not anew and done.is_file() and done.read_text() == shlex.join(arguments):
        print(f'\nusing what lies in {folder} (--anew makes it again)')
        return False
    call(*arguments)
    done.parent.mkdir(parents=True, exist_ok=True)
    done.write_text(shlex.join(arguments))
    return True

"""Two runs in one directory: one works, one is refused, also if they start at the same moment."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from projects.prune_plugin import UserError
from projects.prune_plugin.common.directory_lock import locked

ROOT = Path(__file__).resolve().parents[3]
RIVAL = textwrap.dedent("""
    import sys, time
    from projects.prune_plugin import UserError
    from projects.prune_plugin.common.directory_lock import locked

    sys.stdin.readline()
    try:
        with locked(sys.argv[1]):
            print('works', flush=True)
            time.sleep(1.0)
    except UserError as error:
        print(f'refused: {error}', flush=True)
""")


def rivals(folder, count=2):
    return [
        subprocess.Popen(
            [sys.executable, '-c', RIVAL, str(folder)], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(count)
    ]  # fmt: skip


def test_at_the_same_moment(tmp_path):
    processes = rivals(tmp_path)
    for process in processes:
        process.stdin.write('\n')
        process.stdin.flush()
    said = sorted(process.communicate()[0] for process in processes)
    assert said[0].startswith('refused: --output-dir') and 'in use by another run' in said[0]
    assert said[1] == 'works\n'


def test_a_dead_process_holds_nothing(tmp_path):
    (process,) = rivals(tmp_path, 1)
    process.stdin.write('\n')
    process.stdin.flush()
    assert process.stdout.readline() == 'works\n'
    with pytest.raises(UserError, match='in use'), locked(tmp_path):
        pass
    process.kill()
    process.wait()
    with locked(tmp_path):
        pass


def test_within_one_process_it_may_be_held_twice_and_is_free_afterwards(tmp_path):
    with locked(tmp_path), locked(tmp_path / '.'):
        pass
    with locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())

"""What ``import mm_prune`` makes of other packages ``projects``; a stub stands for the plugin."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUB = {
    'prune_plugin/__init__.py': "__all__ = ['double']\ndef double(x): return 2 * x\n",
    'vit/__init__.py': "whose = 'ours'\n",
}
PACKAGE = {'__init__.py': '', 'mmdet3d_plugin/__init__.py': "whose = 'theirs'\n"}
NAMESPACE = {'mmdet3d_plugin/__init__.py': "whose = 'theirs'\n"}
PRUNE = 'import mm_prune; assert mm_prune.double(2) == 4\n'
DRIVE = "from projects.mmdet3d_plugin import whose; assert whose == 'theirs'\n"
CLASSIFY = "from projects.vit import whose; assert whose == 'ours'\n"
#: Calls the plugin's function, found by name, in a process that doesn't know of this one's imports.
SPAWN = """
import multiprocessing, sys
if __name__ == '__main__':
    {first}
    from projects.prune_plugin import double
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        assert pool.map(double, [1, 2]) == [2, 4]
"""


def written(folder: Path, files: dict[str, str]) -> Path:
    """A folder with ``files`` in its ``projects``."""
    for name, text in files.items():
        file = folder / 'projects' / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.fixture
def ours(tmp_path) -> Path:
    """``mm_prune`` as it is, beside the stub."""
    ignore = shutil.ignore_patterns('__pycache__')
    shutil.copytree(ROOT / 'mm_prune', tmp_path / 'ours' / 'mm_prune', ignore=ignore)
    return written(tmp_path / 'ours', STUB)


@pytest.fixture
def theirs(tmp_path):
    """``theirs(files)``: a repository with these files in its ``projects``."""
    return lambda files: written(tmp_path / 'theirs', files)


@pytest.fixture
def failure(tmp_path):
    """``failure(code, *path)``: what a script ends with, run without what is installed here."""

    def run(code: str, *path: Path) -> str:
        script = tmp_path / 'tools' / 'run.py'
        script.parent.mkdir(exist_ok=True)
        script.write_text(code)
        done = subprocess.run(
            [sys.executable, '-S', str(script)], capture_output=True, text=True, timeout=60,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, path))}, cwd=tmp_path,
        )  # fmt: skip
        return done.stderr.strip().splitlines()[-1] if done.returncode else ''

    return run


@pytest.mark.parametrize('files', [PACKAGE, NAMESPACE], ids=['package', 'namespace'])
@pytest.mark.parametrize('first', ['ours', 'theirs'])
@pytest.mark.parametrize('code', [PRUNE + DRIVE + CLASSIFY, DRIVE + PRUNE + CLASSIFY])
def test_modules_of_both_are_found(failure, ours, theirs, files, first, code):
    path = {'ours': ours, 'theirs': theirs(files)}
    assert failure(code, path.pop(first), *path.values()) == ''


def test_where_no_other_is(failure, ours):
    assert failure(PRUNE + CLASSIFY, ours) == ''


@pytest.mark.parametrize('files', [{}, PACKAGE, NAMESPACE], ids=['none', 'package', 'namespace'])
def test_through_a_link(failure, ours, theirs, files):
    """A link to the package alone; the path may change later."""
    repo = theirs(files)
    repo.mkdir(exist_ok=True)
    (repo / 'mm_prune').symlink_to(ours / 'mm_prune')
    code = f"{PRUNE}import sys; sys.path.insert(0, '/nowhere')\n{CLASSIFY}"
    assert failure(code + (DRIVE if files else ''), repo) == ''


def test_what_both_have_is_theirs(failure, ours, theirs):
    repo = theirs({**PACKAGE, 'vit/__init__.py': "whose = 'theirs'\n"})
    code = PRUNE + CLASSIFY.replace('ours', 'theirs')
    assert failure(code, repo, ours) == ''


def test_a_folder_without_init_is_no_plugin(failure, ours, theirs):
    repo = theirs({**PACKAGE, 'prune_plugin/notes.txt': ''})
    assert failure(PRUNE, repo, ours) == ''


@pytest.mark.parametrize('before', ['', 'import projects.prune_plugin\n'])
@pytest.mark.parametrize('files', [PACKAGE, NAMESPACE], ids=['package', 'namespace'])
def test_another_plugin_is_refused(failure, ours, theirs, files, before):
    repo = theirs({**files, 'prune_plugin/__init__.py': ''})
    said = failure(before + PRUNE, repo, ours)
    plugin = 'projects/prune_plugin/__init__.py'
    assert said == (
        f'ImportError: mm_prune belongs to {ours / plugin}, but projects.prune_plugin is '
        f'{repo / plugin}: rename that package, or take it off sys.path'
    )


def test_a_single_file_is_refused(failure, ours, tmp_path):
    (tmp_path / 'projects.py').touch()
    said = failure(PRUNE, tmp_path, ours)
    file = tmp_path / 'projects.py'
    assert said.endswith(f'needs a package projects, but {file} is a single file: rename it')


def test_a_copy_without_the_plugin_is_refused(failure, ours):
    shutil.rmtree(ours / 'projects' / 'prune_plugin')
    said = failure(PRUNE, ours)
    assert 'projects/prune_plugin/__init__.py, which is missing: install mm-prune again' in said


def test_a_fault_of_theirs_stays_visible(failure, ours, theirs):
    repo = theirs({**PACKAGE, '__init__.py': 'import mmcv_of_long_ago\n'})
    assert failure(PRUNE, repo, ours) == ("ModuleNotFoundError: No module named 'mmcv_of_long_ago'")


def test_spawned_processes_find_the_plugin_if_their_package_imports_mm_prune(failure, ours, theirs):
    """A line in ``projects/__init__.py``; after that the old name alone will do, too."""
    repo = theirs({**PACKAGE, '__init__.py': 'import mm_prune\n'})
    assert failure(SPAWN.format(first='pass'), repo, ours) == ''


def test_spawned_processes_find_the_plugin_where_nothing_hides_it(failure, ours, theirs):
    assert failure(SPAWN.format(first='import mm_prune'), theirs(NAMESPACE), ours) == ''

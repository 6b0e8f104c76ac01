"""Tools of a repository whose own package ``projects`` hides ours, with ``PruneRunner``."""

import json
import re
import sys
from pathlib import Path

import bare_environment
import pytest

ROOT = Path(__file__).resolve().parents[2]
#: In a process of its own, which imports nothing but what the repository has.
SPAWNED = ('train_dataloader.num_workers=1', 'train_dataloader.multiprocessing_context=spawn')


@pytest.fixture(scope='module')
def dense(driving_repo, tmp_path_factory) -> Path:
    """A checkpoint of the repository's own training."""
    folder = tmp_path_factory.mktemp('dense')
    bare_environment.run(
        sys.executable, 'tools/train.py', 'projects/configs/driver.py', '--work-dir', folder,
        path=[driving_repo], cwd=driving_repo,
    )  # fmt: skip
    return folder / 'epoch_2.pth'


@pytest.fixture
def check_pruning(driving_repo, dense, tmp_path):
    """``check_pruning(python, path)``: prune, train and test with the repository's tools."""

    def check(python: Path | str, path: Path, *options: str) -> None:
        def run(tool: str, *args: Path | str) -> str:
            command = (f'tools/{tool}.py', 'projects/configs/driver_prune.py', *args)
            paths = [driving_repo, path]
            return bare_environment.run(python, *command, path=paths, cwd=driving_repo)

        work_dir = tmp_path / 'pruned'
        run('train', '--work-dir', work_dir, '--cfg-options', f'load_from={dense}', *options)
        report = json.loads((work_dir / 'report.json').read_text())
        assert 0.3 <= report['achieved']['params'] < 0.33
        said = run('test', work_dir / 'latest.pth', '--work-dir', tmp_path / 'test')
        (tested,) = re.findall(r'same_turn: ([\d.]+)', said)
        recovered = report['recovered']['metrics']['same_turn']
        assert 60 < recovered < 100 and float(tested) == pytest.approx(recovered, abs=1e-3)

    return check


def test_from_a_path_entry_with_spawned_workers(check_pruning):
    """A path entry is what an editable install makes."""
    check_pruning(sys.executable, ROOT, *SPAWNED)


def test_from_the_wheel(check_pruning, bare_python, installed):
    check_pruning(bare_python(), installed)


def test_a_family_of_ours_beside_theirs(driving_repo, tmp_path):
    pytest.importorskip('timm')
    config = tmp_path / 'families.py'
    config.write_text(
        f'_base_ = {str(driving_repo / "projects/configs/driver_prune.py")!r}\n'
        "custom_imports = dict(imports=['mm_prune', 'projects.vit', 'projects.mmdet3d_plugin'])\n"
    )
    code = (
        'import sys; from mmengine.config import Config; from mmengine.registry import MODELS\n'
        'Config.fromfile(sys.argv[1]); print(MODELS.get("TimmClassifier"), MODELS.get("Driver"))'
    )
    path = [driving_repo, ROOT]
    said = bare_environment.run(sys.executable, '-c', code, config, path=path, cwd=tmp_path)
    assert 'projects.vit.' in said and 'projects.mmdet3d_plugin.' in said


@pytest.mark.parametrize('first', [True, False], ids=['theirs first', 'ours first'])
def test_our_tools_beside_a_package_projects(driving_repo, dense, tmp_path, first):
    """With the repository on PYTHONPATH, as its own modules need."""
    path = [driving_repo, ROOT] if first else [ROOT, driving_repo]
    said = bare_environment.run(
        sys.executable, ROOT / 'tools/analysis_struct.py', 'projects/configs/driver_prune.py', dense,
        '--dry-run', path=path, cwd=driving_repo,
    )  # fmt: skip
    assert 'removed' in said

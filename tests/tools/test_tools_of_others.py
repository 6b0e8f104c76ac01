"""mmdet's and mmdet3d's own tools with ``runner_type='PruneRunner'``, which ``custom_imports`` brings."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tool_runs import CONFIG, QUICK, ROOT, SMALL, VAD_CONFIG, vad_options


def tools_of(package: str) -> Path:
    """The folder of a package's tools, as it carries them; skips without them."""
    spec = importlib.util.find_spec(package)
    folder = Path(spec.origin).parent / '.mim' / 'tools' if spec else None
    if folder is None or not (folder / 'train.py').is_file():
        pytest.skip(f"{package}'s tools are not installed")
    return folder


def run(tool: Path, folder: Path, *args) -> str:
    """What a tool prints, run from another folder; it must end well."""
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    done = subprocess.run(
        [sys.executable, str(tool), *map(str, args)], capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'}, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def accuracy(said: str) -> float:
    return float(re.findall(r'accuracy/top1: ([\d.]+)', said)[-1])


@pytest.mark.slow
def test_prune_train_and_test_with_mmdets_tools(tmp_path):
    tools = tools_of('mmdet')
    config = tmp_path / 'digits_prune.py'
    config.write_text(
        f"_base_ = {CONFIG!r}\nrunner_type = 'PruneRunner'\n"
        "prune_cfg = dict(budget=dict(type='params', ratio=0.3), recovery=dict(epochs=1))\n"
    )
    train, test = tools / 'train.py', tools / 'test.py'
    dense, pruned = tmp_path / 'dense', tmp_path / 'pruned'
    options = ('--cfg-options', *SMALL, 'train_cfg.max_epochs=1', 'randomness.seed=0')
    run(train, tmp_path, CONFIG, '--work-dir', dense, *options)
    load_from = f'load_from={dense / "epoch_1.pth"}'
    run(train, tmp_path, config, '--work-dir', pruned, *options, *QUICK, load_from)
    report = json.loads((pruned / 'report.json').read_text())
    assert 0.3 <= report['achieved']['params'] < 0.31
    reasons = report['uncovered'].values()
    assert any(reason.startswith('LayerNorm: norms over') for reason in reasons)
    work_dir = ('--work-dir', tmp_path / 'test')
    said = run(test, tmp_path, config, pruned / 'latest.pth', *work_dir, '--cfg-options', *SMALL)
    recovered = report['recovered']['metrics']['accuracy/top1']
    assert accuracy(said) == pytest.approx(recovered, abs=1e-3)


@pytest.mark.slow
def test_prune_train_and_test_vad_with_mmdet3ds_tools(vad_trained, toy_root, tmp_path):
    tools = tools_of('mmdet3d')
    config = tmp_path / 'vad_prune.py'
    config.write_text(
        f"_base_ = {VAD_CONFIG!r}\nrunner_type = 'PruneRunner'\n"
        f'load_from = {str(vad_trained / "epoch_3.pth")!r}\n'
        "prune_cfg = dict(budget=dict(type='params', ratio=0.3), criterion=dict(type='L1'), "
        'recovery=dict(epochs=1))\n'
    )
    options = vad_options(toy_root)
    pruned = tmp_path / 'pruned'
    run(tools / 'train.py', tmp_path, config, '--work-dir', pruned, *options, *QUICK[:1])
    report = json.loads((pruned / 'report.json').read_text())
    assert 0.3 <= report['achieved']['params'] < 0.31
    work_dir = tmp_path / 'test'
    run(
        tools / 'test.py', tmp_path, config, pruned / 'latest.pth', '--work-dir', work_dir, *options
    )
    found = json.loads(next(work_dir.glob('*/*.json')).read_text())
    expected = report['recovered']['metrics']
    same = [name for name in expected if 'planning' in name and 'baseline' not in name]
    assert len(same) > 5
    for name in same:
        assert found[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6, nan_ok=True), name

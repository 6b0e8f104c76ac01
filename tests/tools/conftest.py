"""Running the tools, as processes and in this one; one tiny trained checkpoint for all tests."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tool_runs import CONFIG, ROOT, SMALL, TWO_RANKS, VAD_CONFIG, Ended, vad_options


@pytest.fixture(scope='session')
def run_tool():
    """``run_tool('train', *args, ranks=2)``: a real process, which must end well unless told."""

    def run(name: str, *args, ranks: int = 1, cwd=None, code: int | None = 0, env=()) -> Ended:
        launch = TWO_RANKS if ranks == 2 else ()
        command = [sys.executable, *launch, str(ROOT / f'tools/{name}.py'), *map(str, args)]
        environment = {**os.environ, 'OMP_NUM_THREADS': '1' if ranks == 2 else '2', **dict(env)}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=cwd, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            out, err = process.communicate(timeout=150)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the launcher's workers too
            raise
        ended = Ended(process.returncode, out + err, err)
        assert code is None or ended.code == code, ended.out[-4000:]
        return ended

    return run


@pytest.fixture
def call_tool(capfd, monkeypatch):
    """``call_tool('train', *args)``: the tool in this process, its ``main`` through ``cli.run``."""

    def call(name: str, *args) -> Ended:
        from mmengine.logging import MMLogger
        from mmengine.runner.checkpoint import CheckpointLoader

        from projects.prune_plugin.workflows import cli

        spec = importlib.util.spec_from_file_location(f'tool_{name}', ROOT / f'tools/{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        schemes = dict(CheckpointLoader._schemes)
        MMLogger._instance_dict.clear()  # their streams belong to an earlier capture
        capfd.readouterr()
        try:
            with pytest.raises(SystemExit) as left:
                cli.run(module.main, module.parse(list(map(str, args))))
        finally:
            CheckpointLoader._schemes = schemes
        captured = capfd.readouterr()
        return Ended(left.value.code, captured.out + captured.err, captured.err)

    return call


@pytest.fixture(scope='session')
def trained(run_tool, tmp_path_factory) -> Path:
    """The work directory of a dense training of two epochs."""
    folder = tmp_path_factory.mktemp('dense') / 'work'
    options = (*SMALL, 'train_cfg.max_epochs=2')
    run_tool('train', CONFIG, '--work-dir', folder, '--cfg-options', *options)
    return folder


@pytest.fixture(scope='session')
def checkpoint(trained) -> Path:
    """The dense checkpoint."""
    return trained / 'epoch_2.pth'


@pytest.fixture(scope='session')
def vad_trained(run_tool, toy_root, tmp_path_factory) -> Path:
    """The work directory of three epochs on one process."""
    folder = tmp_path_factory.mktemp('vad') / 'work'
    run_tool('train', VAD_CONFIG, '--work-dir', folder,
             *vad_options(toy_root, 'train_cfg.max_epochs=3'))  # fmt: skip
    return folder


@pytest.fixture
def counted(monkeypatch):
    """Labels of the evaluations made; set ``counted.limit`` to have a later one break off."""
    from projects.prune_plugin.evaluation.test_set import TestSet

    class Labels(list):
        limit = None

    labels, evaluate = Labels(), TestSet.evaluate

    def noted(self, model, label, progress=True):
        if len(labels) == labels.limit:
            raise RuntimeError('broken off')
        labels.append(label)
        return evaluate(self, model, label, progress)

    monkeypatch.setattr(TestSet, 'evaluate', noted)
    return labels

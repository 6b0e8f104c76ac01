"""Ctrl-C and SIGTERM: one line, the shell's exit code, nothing half-written."""

import argparse
import importlib.util
import os
import re
import signal
import subprocess
import sys

import pytest
from tool_runs import CONFIG, QUICK, ROOT, SMALL

TAYLOR = "prune_cfg.criterion=dict(type='Taylor')"


@pytest.mark.parametrize(
    ('number', 'moment'),
    [
        (signal.SIGINT, 'world size'),
        (signal.SIGTERM, 'world size'),
        (signal.SIGINT, r'Epoch\(train\)'),
        (signal.SIGTERM, r'Epoch\(train\)'),
    ],
)
def test_an_interruption_is_one_line(tmp_path, checkpoint, number, moment):
    out = tmp_path / 'out'
    command = [
        sys.executable, str(ROOT / 'tools/analysis_struct.py'), CONFIG, str(checkpoint),
        '--output-dir', str(out), '--fine-tune', '--fine-tune-epochs', '40',
        '--cfg-options', *SMALL, *QUICK, TAYLOR, 'default_hooks.logger.interval=1',
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    said = []
    for line in process.stdout:
        said.append(line)
        if re.search(moment, line):
            process.send_signal(number)
            break
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + number, ''.join(said[-20:]) + rest
    assert 'Traceback' not in rest
    last = rest.strip().splitlines()[-1]
    assert last.startswith('interrupted: nothing half-written is left; run it again'), rest
    assert not list(tmp_path.rglob('.*.part'))


def test_before_anything_is_imported(tmp_path, checkpoint):
    process = subprocess.Popen(
        [sys.executable, str(ROOT / 'tools/train.py'), CONFIG, '--work-dir', str(tmp_path / 'w')],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        process.communicate(timeout=0.6)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM
    assert said.strip() == (
        'interrupted: nothing half-written is left; --resume goes on from the last checkpoint'
    )


def test_what_an_interruption_brings_about_is_no_error_of_the_user(load_arguments, capsys):
    """A config whose reading ends otherwise because of it."""
    from projects.prune_plugin import UserError
    from projects.prune_plugin.workflows import cli

    def read(_):
        raise UserError('config a.py cannot be read: RecursionError')

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        interruption = load_arguments.Interruption('run it again')
        with pytest.raises(SystemExit):
            cli.run(read, argparse.Namespace())
        assert 'cannot be read' in capsys.readouterr().err
        interruption.number = signal.SIGTERM
        with pytest.raises(UserError):
            cli.run(read, argparse.Namespace())
        assert 'cannot be read' not in capsys.readouterr().err
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.fixture
def load_arguments():
    """tools/arguments.py as a module."""
    spec = importlib.util.spec_from_file_location('arguments', ROOT / 'tools/arguments.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

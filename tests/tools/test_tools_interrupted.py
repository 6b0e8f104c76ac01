"""Ctrl-C and SIGTERM: one line, the shell's exit code, nothing half-written."""

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

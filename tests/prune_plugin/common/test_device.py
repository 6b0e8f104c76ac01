"""GPUs that are asked for, and those that there are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from projects.prune_plugin import UserError
from projects.prune_plugin.common import device

ROOT = Path(__file__).resolve().parents[3]
#: What the tool's command line leaves for CUDA, and whether anything was imported that starts it.
PROBE = """
import os, sys
sys.path.insert(0, sys.argv[1])
import analysis_struct
analysis_struct.parse([sys.argv[2], '--gpu-ids', *sys.argv[3:]])
print(os.environ['CUDA_VISIBLE_DEVICES'], 'torch' in sys.modules)
"""


@pytest.mark.parametrize('before', [None, '0', '3'])
def test_gpu_ids_are_set_before_cuda_starts(before):
    """Whatever the variable was; a change of it is said."""
    env = {k: v for k, v in os.environ.items() if k != 'CUDA_VISIBLE_DEVICES'}
    if before is not None:
        env['CUDA_VISIBLE_DEVICES'] = before
    config = ROOT / 'projects/configs/ViT/vit_tiny_digits.py'
    ended = subprocess.run(
        [sys.executable, '-c', PROBE, ROOT / 'tools', config, '3'],
        env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stdout.split() == ['3', 'False']
    assert ("sets CUDA_VISIBLE_DEVICES to 3, instead of '0'" in ended.stderr) == (before == '0')


@pytest.mark.parametrize(
    ('named', 'count', 'there', 'said'),
    [
        ('3', 0, 2, "is '3', of which CUDA can use 0; this machine has the GPUs 0 to 1"),
        ('0,5', 1, 2, 'of which CUDA can use 1'),
        ('0,1', 2, 2, None),
        ('', 0, 2, None),
        ('-1', 0, 2, None),
        ('NoDevFiles', 0, 2, None),
        ('GPU-8932f937,GPU-1', 1, 2, 'of which CUDA can use 1'),
        ('3', 0, 0, None),
    ],
)
def test_gpus_that_are_not_there_are_refused(named, count, there, said, monkeypatch, tmp_path):
    """CUDA itself would run on CPUs; without any GPU that is what all tools do."""
    for number in range(there):
        (tmp_path / 'gpus' / str(number)).mkdir(parents=True)
    monkeypatch.setattr(device, 'GPUS_OF_DRIVER', tmp_path / 'gpus')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: count)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', named)
    if said is None:
        device.check_visible_gpus()
        return
    with pytest.raises(UserError, match=said):
        device.check_visible_gpus()


@pytest.mark.parametrize(
    ('asked', 'count', 'warns'), [([0, 2], 0, True), ([0], 1, False), (None, 0, False)]
)
def test_gpus_asked_for_where_there_is_none(asked, count, warns, monkeypatch, tmp_path, recwarn):
    """CPUs do the work, and it's said."""
    monkeypatch.setattr(device, 'GPUS_OF_DRIVER', tmp_path / 'gpus')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: count)
    device.check_asked_gpus(asked)
    said = [str(warning.message) for warning in recwarn]
    assert said == ['--gpu-ids 0 2: no GPU can be used here; going on with CPUs'] * warns

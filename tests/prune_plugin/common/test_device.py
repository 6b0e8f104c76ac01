"""GPUs that are asked for, and those that there are."""

import pytest
import torch

from projects.prune_plugin import UserError
from projects.prune_plugin.common import device


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
def test_gpus_asked_for_where_there_is_none(asked, count, warns, monkeypatch, tmp_path):
    """CPUs do the work, and it's said."""
    monkeypatch.setattr(device, 'GPUS_OF_DRIVER', tmp_path / 'gpus')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: count)
    said = device.check_asked_gpus(asked)
    assert said == ('--gpu-ids 0 2: no GPU can be used here; going on with CPUs' if warns else None)

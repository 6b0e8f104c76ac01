"""Clocks that go backwards, and time stamps that lie."""

import json
import os

import torch
from fault_table import fault
from faulty_tools import CONFIG, PROFILE, SMALL, assert_same_end

from projects.prune_plugin.checkpoints.checkpoint_file import newest_checkpoint

KIND = 'Clocks'


@fault(
    KIND,
    'the clock jumps back',
    '`time.time` loses an hour with every call, in pruning and retraining',
    'the same files, bit by bit; durations in the report stay positive',
)
def test_clock_jumps_back(tool, dense, tmp_path):
    config = tmp_path / 'clock_config.py'
    config.write_text(
        f"_base_ = ['{CONFIG}']\nprune_cfg = dict({PROFILE}, recovery=dict(epochs=2))\n"
    )
    flags = (config, dense, '--fine-tune', '--cfg-options', *SMALL)
    for name, where in (('true', None), ('false', dict(type='backward_clock', step=3600))):
        tool('analysis_struct', *flags, '--output-dir', tmp_path / name, fault=where, code=0)
    assert_same_end(tmp_path / 'false', tmp_path / 'true', more='^$')
    seconds = json.loads((tmp_path / 'false/report.json').read_text())['seconds']
    assert all(0 <= value < 100 for value in seconds.values()), seconds
    assert seconds['evaluate'] > 0


@fault(
    KIND,
    'time stamps of checkpoints in the wrong order',
    '`os.utime`: the older, the later',
    'the newest is told by its number and by `last_checkpoint`, never by time',
)
def test_lying_time_stamps(tmp_path):
    for number in (1, 2, 10):
        path = tmp_path / f'epoch_{number}.pth'
        torch.save(dict(state_dict=dict(w=torch.ones(1))), path)
        os.utime(path, (2e9 - number, 2e9 - number))
    assert newest_checkpoint(tmp_path).name == 'epoch_10.pth'
    (tmp_path / 'last_checkpoint').write_text(
        '/another/machine/epoch_2.pth'
    )  # 10: of an earlier run
    assert newest_checkpoint(tmp_path).name == 'epoch_2.pth'
    (tmp_path / 'last_checkpoint').write_text('')  # killed while writing
    (tmp_path / 'latest.pth').symlink_to('epoch_1.pth')
    assert newest_checkpoint(tmp_path).name == 'epoch_1.pth'

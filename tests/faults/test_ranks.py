"""Two ranks under torch.distributed.run, of which one dies or is late."""

import json
import os
import re
import subprocess
import sys
import time

import pytest
from fault_table import fault
from faulty_tools import (
    CONFIG,
    HERE,
    ONE_THREAD,
    PROFILE,
    ROOT,
    SMALL,
    Ended,
    assert_same_end,
    half_written,
)

pytestmark = pytest.mark.faults
KIND = 'Ranks'
RETRAIN = "recovery=dict(mode='retrain', epochs=2)"
TAYLOR = f"prune_cfg = dict(criterion=dict(type='Taylor'), {PROFILE}, {RETRAIN})"
BATCH = 'mmengine.model.base_model.base_model:BaseModel.parse_losses'
#: Calibrating, four batches of 8 on two ranks, is two calls a rank; an epoch is one batch of 32.
CALIBRATING, TRAINING = 2, 4


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp('config') / 'ranks_config.py'
    path.write_text(f"_base_ = ['{CONFIG}']\n{TAYLOR}\n")
    return path


def on_two_ranks(config, dense, out, *more, **where) -> tuple[Ended, float]:
    """tools/train.py with a fault; how it ended, and after how many seconds."""
    launch = ('-m', 'torch.distributed.run', '--nproc_per_node=2', '--standalone')
    flags = ('--work-dir', out, '--load-from', dense, '--launcher', 'pytorch', *more)
    tool = (HERE / 'injecting.py', json.dumps(where), ROOT / 'tools/train.py', config, *flags)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *launch, *map(str, tool), '--cfg-options', *SMALL], text=True, timeout=150,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, **ONE_THREAD},
    )  # fmt: skip
    return Ended(done.returncode, done.stdout), time.monotonic() - began


@pytest.fixture(scope='module')
def unbroken(config, dense, tmp_path_factory):
    out = tmp_path_factory.mktemp('ranks') / 'out'
    ended, seconds = on_two_ranks(config, dense, out)
    assert ended.code == 0, ended.out[-3000:]
    return out, seconds


@pytest.mark.parametrize('moment', [CALIBRATING, TRAINING], ids=['calibrating', 'training'])
@pytest.mark.parametrize('rank', [0, 1])
@fault(
    KIND,
    'a rank dies',
    'SIGKILL to either rank of two, while calibrating and in the second epoch of training',
    'the other ends within seconds; a sentence says that a rank is gone; nothing half-written; '
    'with `--resume` the same end',
)
def test_a_rank_dies(config, dense, unbroken, tmp_path, rank, moment):
    out = tmp_path / 'out'
    ended, seconds = on_two_ranks(
        config, dense, out, type='kill_at_call', target=BATCH, number=moment, rank=rank
    )
    assert ended.code == 1, ended.out[-3000:]
    survivor = rf'error: rank {1 - rank} of 2 exits because another rank was lost'
    by_launcher = 'Signal 9 (SIGKILL) received'  # it may end the survivor before that speaks
    assert re.search(survivor, ended.out) or by_launcher in ended.out, ended.out[-4000:]
    assert seconds < unbroken[1] + 45
    assert not half_written(tmp_path)
    again, _ = on_two_ranks(config, dense, out, '--resume')
    assert again.code == 0, again.out[-3000:]
    assert_same_end(out, unbroken[0])


@fault(
    KIND,
    'a rank is slow',
    '0.5 s of sleep before each of its batches',
    'the other waits; the same end, bit by bit',
)
def test_a_slow_rank(config, dense, unbroken, tmp_path):
    ended, _ = on_two_ranks(
        config, dense, tmp_path / 'out', type='slow_calls', target=BATCH, seconds=0.5, rank=1
    )
    assert ended.code == 0, ended.out[-3000:]
    assert_same_end(tmp_path / 'out', unbroken[0])


@fault(
    KIND,
    'the disk of rank 0 is full',
    'RLIMIT_FSIZE on rank 0 alone',
    'rank 0 names the file, rank 1 says that a rank is gone; both end',
)
def test_rank_0_cannot_write(config, dense, tmp_path):
    ended, _ = on_two_ranks(
        config, dense, tmp_path / 'out', type='limit_file_size', size=20_000, rank=0
    )
    assert ended.code == 1, ended.out[-3000:]
    assert 'ranks_structured_pruned.pth cannot be written (File too large)' in ended.out
    assert not half_written(tmp_path)


@fault(
    KIND,
    'a NaN loss on one rank',
    'in the second batch that rank 1 calibrates with',
    'all ranks end; the sentence names the batch',
)
def test_nan_loss_on_rank_1(config, dense, tmp_path):
    ended, _ = on_two_ranks(config, dense, tmp_path / 'out', type='nan_loss', number=2, rank=1)
    said = re.findall(r'^error: .*', ended.out, re.MULTILINE)
    assert ended.code == 1 and len(said) == 1, ended.out[-3000:]
    assert 'the loss of batch 3' in said[0] and not (tmp_path / 'out').exists()

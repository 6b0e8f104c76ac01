"""``--gpus`` and ``--gpu-ids``: what CUDA is shown, and what is said."""

import os
import subprocess
import sys

import pytest
from tool_runs import CONFIG, ROOT

#: What the tool's command line leaves for CUDA, and whether anything was imported that starts it.
PROBE = """
import os, sys
sys.path.insert(0, sys.argv[1])
import analysis_struct
analysis_struct.parse([sys.argv[2], *sys.argv[3:]])
print(repr(os.environ['CUDA_VISIBLE_DEVICES']), 'torch' in sys.modules)
"""


def parsed(*words: str, env=(), visible: str | None = None) -> subprocess.CompletedProcess:
    """How a command line is parsed, in a process of its own.

    Args:
        *words: Of the command line.
        env: More of the environment.
        visible: CUDA_VISIBLE_DEVICES; None: not set.
    """
    env = {k: v for k, v in os.environ.items() if k != 'CUDA_VISIBLE_DEVICES'} | dict(env)
    if visible is not None:
        env['CUDA_VISIBLE_DEVICES'] = visible
    command = [sys.executable, '-c', PROBE, ROOT / 'tools', CONFIG, *words]
    return subprocess.run(command, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ('visible', 'ids', 'left'),
    [
        (None, '3', '3'),
        ('3', '0', '3'),
        ('2,5,7', '2 0', '7,2'),
        ('2, 5', '1', '5'),
        ('GPU-8932f937,MIG-x', '1', 'MIG-x'),
        ('1,-1,2', '0', '1'),
        ('', '0', ''),
        ('-1', '0', '-1'),
        ('NoDevFiles', '0', 'NoDevFiles'),
    ],
)
def test_numbers_count_among_the_gpus_that_are_visible(visible, ids, left):
    """What a scheduler hands out is narrowed, before CUDA starts; nobody else's GPU is taken."""
    said = parsed('--gpu-ids', *ids.split(), '--gpus', '1', visible=visible)
    assert said.stdout.split() == [repr(left), 'False'], said.stderr
    assert 'warnings.warn' not in said.stderr


@pytest.mark.parametrize(
    ('visible', 'ids', 'said'),
    [
        ('3', '3', '--gpu-ids 3 counts among the GPUs that CUDA_VISIBLE_DEVICES=3 shows; valid is only 0'),
        ('3,4', '0 2', '--gpu-ids 2 counts among the GPUs that CUDA_VISIBLE_DEVICES=3,4 shows; valid are'),
        ('1,-1,2', '1', 'CUDA_VISIBLE_DEVICES=1,-1,2 shows; valid is only 0, the one GPU there'),
    ],
)  # fmt: skip
def test_gpus_that_are_not_visible_are_refused(visible, ids, said):
    ended = parsed('--gpu-ids', *ids.split(), visible=visible)
    assert ended.returncode == 2 and ended.stderr.startswith('error: ')
    assert said in ended.stderr and ended.stderr.count('\n') == 1


@pytest.mark.parametrize(
    ('launcher', 'environ', 'said'),
    [
        ('none', {}, '4 devices asked for, but --launcher none runs one process: going on with one. '),
        ('pytorch', dict(RANK='0', WORLD_SIZE='2', LOCAL_RANK='0'),
         '4 devices asked for, but --launcher pytorch has 2 processes: going on with 2. Start with "py'),
        ('slurm', dict(SLURM_PROCID='0', SLURM_NTASKS='1', SLURM_LOCALID='0'),
         '--launcher slurm has one process: going on with one. Start with "srun --ntasks=N '),
        ('pytorch', dict(RANK='1', WORLD_SIZE='2', LOCAL_RANK='1'), None),
        ('pytorch', dict(RANK='0', WORLD_SIZE='4', LOCAL_RANK='0'), None),
        ('pytorch', dict(RANK='0', WORLD_SIZE='x', LOCAL_RANK='0'), None),
    ],
)  # fmt: skip
def test_more_gpus_than_processes_are_one_line(launcher, environ, said):
    ended = parsed('--gpus', '4', '--launcher', launcher, env=environ, visible='')
    assert ended.returncode == 0, ended.stderr
    lines = ended.stderr.splitlines()
    assert len(lines) == (said is not None)
    assert all(line.startswith('warning: ') and said in line for line in lines)


def test_a_flag_without_effect_is_one_line():
    ended = parsed('--amp', visible='')
    assert ended.stderr == 'warning: --amp has no effect without --fine-tune\n'

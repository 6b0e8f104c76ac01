"""``kill -9`` at every stage; then the same command again, with --resume where there is one."""

import re
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_table import fault
from faulty_tools import CONFIG, PROFILE, SMALL, assert_same_end, files, half_written

SAME = 'run again, it ends with the same files, bit by bit'
SAME_RESUMED = 'with `--resume` it ends with the same weights, masks, tables and metrics'
RECOVERY = "recovery=dict(mode='retrain', epochs=2)"
STEPS = "schedule=dict(type='Steps', ratios=[0.3, 0.5])"
TAYLOR = "type='StructuredPruner', criterion=dict(type='Taylor')"
UNITS = f'{TAYLOR}, budget=dict(ratio=0.3)'
WEIGHTS = "type='WeightPruner', sparsifier=dict(type='Magnitude')"
KEEP_ONE = 'default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))\n'
LOOP = "train_cfg = dict(type='IterativePruneLoop', max_epochs=1)\n"


@dataclass(frozen=True)
class Job:
    """A run: the tool, its arguments, what the config adds, and how it is gone on with."""

    tool: str
    config: str
    flags: tuple[str, ...] = ()
    again: tuple[str, ...] = ('--resume',)
    options: tuple[str, ...] = ()


JOBS = {
    'prune': Job('analysis_struct', f'prune_cfg = dict({UNITS}, {PROFILE})', again=()),
    'fine_tune': Job('analysis_struct', f'prune_cfg = dict({UNITS}, {PROFILE}, {RECOVERY})',
                     ('--fine-tune', '--retrain'), ()),
    'sparsegpt': Job('analysis_struct', "prune_cfg = dict(type='WeightPruner', sparsifier=dict("
                     f"type='SparseGPT'), budget=dict(ratio=0.5), {PROFILE})"),
    'rounds': Job('analysis_struct', f'prune_cfg = dict({WEIGHTS}, {STEPS}, {PROFILE}, {RECOVERY})',
                  ('--fine-tune', '--retrain')),
    'dense': Job('train', KEEP_ONE, options=('train_cfg.max_epochs=3',)),
    'train': Job('train', f'prune_cfg = dict({UNITS}, {PROFILE}, {RECOVERY})'),
    'tickets': Job('train', f"{LOOP}param_scheduler = []\nprune_cfg = dict({TAYLOR}, "
                   f"schedule=dict(type='Geometric', share=0.3, rounds=2, rewind='initial'), {PROFILE})"),
}  # fmt: skip


@pytest.fixture(scope='session')
def start(tool, dense, tmp_path_factory):
    """``start(job, folder, again=False, fault=None)`` runs a job into a folder."""
    configs = tmp_path_factory.mktemp('configs')

    def run(name: str, folder: Path, again: bool = False, fault=None, code=None):
        job, config = JOBS[name], configs / f'{name}_config.py'
        config.write_text(f"_base_ = ['{CONFIG}']\n{job.config}\n")
        places = ('--work-dir', folder, '--load-from', dense)
        if job.tool == 'analysis_struct':
            places = (dense, '--output-dir', folder)
        flags = (*job.flags, *(job.again if again else ()))
        options = ('--cfg-options', *SMALL, *job.options)
        return tool(job.tool, config, *places, *flags, *options, fault=fault, code=code)

    return run


@pytest.fixture(scope='session')
def unbroken(start, tmp_path_factory):
    """``unbroken(job)``: the folder of a run without faults, and what it changed there, in order."""
    done = {}

    def run(name: str):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            out, notes = folder / 'out', folder / 'changes.txt'
            start(name, out, fault=dict(type='note_changes', folder=out, into=notes), code=0)
            done[name] = out, notes.read_text().splitlines()
        return done[name]

    return run


def killed_and_resumed(start, unbroken, name: str, folder: Path, fault: dict) -> None:
    """Kill a job, look at what it leaves, go on, and compare the end."""
    ended = start(name, folder / 'out', fault=fault)
    assert ended.code in (-signal.SIGKILL, -signal.SIGXFSZ), ended.out[-3000:]
    assert not half_written(folder)
    start(name, folder / 'out', again=True, code=0)
    assert_same_end(folder / 'out', unbroken(name)[0])
    assert not [name for name in files(folder / 'out') if name.endswith('.part')]


KIND = 'Killed'
MODULE = 'projects.prune_plugin'


@fault(KIND, 'while scoring', 'SIGKILL as the second calibration batch begins', SAME)
def test_killed_while_scoring(start, unbroken, tmp_path):
    """Nothing has been written by then."""
    target = 'mmengine.model.base_model.base_model:BaseModel.parse_losses'
    where = dict(type='kill_at_call', target=target, number=2)
    ended = start('prune', tmp_path / 'out', fault=where)
    assert ended.code == -signal.SIGKILL and not files(tmp_path / 'out'), ended.out
    start('prune', tmp_path / 'out', again=True, code=0)
    assert_same_end(tmp_path / 'out', unbroken('prune')[0])


@fault(
    KIND,
    'while saving the pruned checkpoint',
    'SIGXFSZ from the kernel after 20,000 of its bytes',
    SAME,
)
def test_killed_while_saving_a_pruned_checkpoint(start, unbroken, tmp_path):
    where = dict(type='limit_file_size', size=20_000, deadly=True)
    killed_and_resumed(start, unbroken, 'prune', tmp_path, where)


@fault(
    KIND,
    'in the middle of an epoch of retraining',
    'SIGKILL as its fourth batch begins',
    SAME_RESUMED,
)
def test_killed_in_an_epoch(start, unbroken, tmp_path):
    target = 'mmengine.runner.loops:EpochBasedTrainLoop.run_iter'
    where = dict(type='kill_at_call', target=target, number=4)
    killed_and_resumed(start, unbroken, 'train', tmp_path, where)


@fault(
    KIND,
    'while saving a training checkpoint, of which only one is kept',
    'SIGXFSZ from the kernel after 100,000 of its bytes',
    SAME_RESUMED,
)
def test_killed_while_saving_a_training_checkpoint(start, unbroken, tmp_path):
    """The epoch before is still there, though only one is to be kept."""
    target = f'{MODULE}.training.hooks.atomic_checkpoint_hook:AtomicLocalBackend.put'
    where = dict(type='limit_file_size', size=100_000, deadly=True, target=target, number=2)
    ended = start('dense', tmp_path / 'out', fault=where)
    assert ended.code == -signal.SIGXFSZ, ended.out[-2000:]
    assert {'epoch_1.pth', 'last_checkpoint', 'latest.pth'} <= files(tmp_path / 'out')
    ended = start('dense', tmp_path / 'out', again=True, code=0)
    assert 'resumed epoch: 1' in ended.out
    assert_same_end(tmp_path / 'out', unbroken('dense')[0])


@fault(
    KIND,
    'between the saving of a checkpoint and the word that it is the newest',
    'SIGKILL as `last_checkpoint` is renewed',
    SAME_RESUMED,
)
def test_killed_before_the_pointer(start, unbroken, tmp_path):
    place = dict(folder=tmp_path / 'out', name='last_checkpoint', event='open')
    where = dict(type='kill_at_file', **place, number=2)
    killed_and_resumed(start, unbroken, 'dense', tmp_path, where)


@pytest.mark.faults
@fault(KIND, 'in the second round of pruning', 'SIGKILL as its first batch begins', SAME_RESUMED)
def test_killed_in_a_round(start, unbroken, tmp_path):
    target = 'mmengine.runner.loops:EpochBasedTrainLoop.run_iter'
    where = dict(type='kill_at_call', target=target, number=5)
    killed_and_resumed(start, unbroken, 'rounds', tmp_path, where)


@pytest.mark.faults
@fault(
    KIND,
    'after the last round is in `history.json`, before it is in `history.csv`',
    'SIGKILL as the table gets its name',
    SAME_RESUMED,
)
def test_killed_before_the_last_table(start, unbroken, tmp_path):
    named = [c for c in unbroken('rounds')[1] if c.startswith('os.rename .history.csv')]
    where = dict(type='kill_at_file', folder=tmp_path / 'out', name='.history.csv', number=5)
    assert len(named) >= 5  # of the dense model, and twice in each round
    killed_and_resumed(start, unbroken, 'rounds', tmp_path, where)


@pytest.mark.faults
@fault(KIND, "in the ticket loop's second state", 'SIGKILL as its first batch begins', SAME_RESUMED)
def test_killed_in_the_ticket_loop(start, unbroken, tmp_path):
    target = 'mmengine.runner.loops:EpochBasedTrainLoop.run_iter'
    where = dict(type='kill_at_call', target=target, number=3)
    killed_and_resumed(start, unbroken, 'tickets', tmp_path, where)


@pytest.mark.faults
@pytest.mark.parametrize('name', JOBS)
@fault(
    KIND,
    'before each single change of the output directory: every file opened, renamed or removed, every '
    'folder or link made (logs aside)',
    'SIGKILL from an audit hook; pruning, retraining, SparseGPT, rounds, '
    'dense training, ticket loop',
    'each time: ' + SAME_RESUMED,
)
def test_killed_before_every_change(start, unbroken, tmp_path, name):
    _, changes = unbroken(name)
    logs = re.compile(r'(^| |/)\d{8}_\d{6}')
    moments = [n for n, change in enumerate(changes, 1) if not logs.search(change)]
    assert len(moments) > 20
    for number in moments:
        folder = tmp_path / str(number)
        folder.mkdir()
        where = dict(type='kill_at_change', folder=folder / 'out', number=number)
        killed_and_resumed(start, unbroken, name, folder, where)

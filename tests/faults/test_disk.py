"""Disks that take no more, and folders that may not be written."""

import os

import pytest
from fault_table import fault
from faulty_tools import CONFIG, PROFILE, SMALL, content, files, half_written

KIND = 'Disks'
TAYLOR = f"prune_cfg = dict(criterion=dict(type='Taylor'), {PROFILE}, recovery=dict(epochs=2))"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'full_config.py'
    path.write_text(f"_base_ = ['{CONFIG}']\n{TAYLOR}\n")
    return path


@fault(
    KIND,
    'full while a pruned checkpoint is saved',
    'RLIMIT_FSIZE: the kernel takes 20,000 bytes of it',
    'exit code 2; the sentence names the file; the directory is as before; with room, it works',
)
def test_full_while_saving_a_pruned_checkpoint(tool, dense, config, tmp_path):
    flags = (config, dense, '--output-dir', tmp_path / 'out', '--cfg-options', *SMALL)
    ended = tool('analysis_struct', *flags, fault=dict(type='limit_file_size', size=20_000))
    ended.refused('full_structured_pruned.pth cannot be written (File too large)')
    assert not (tmp_path / 'out').exists()
    tool('analysis_struct', *flags, code=0)
    ended = tool('analysis_struct', *flags, fault=dict(type='limit_file_size', size=20_000))
    ended.refused('full_structured_pruned.pth cannot be written')
    assert not half_written(tmp_path / 'out') and 'report.json' in files(tmp_path / 'out')


@fault(
    KIND,
    'full while a training checkpoint is saved, of which only one is kept',
    'RLIMIT_FSIZE from the second epoch on',
    'exit code 2; the epoch before is still there; `--resume` ends like an unbroken run',
)
def test_full_while_saving_a_training_checkpoint(tool, tmp_path):
    options = ('train_cfg.max_epochs=2', 'default_hooks.checkpoint.max_keep_ckpts=1')
    options = ('--cfg-options', *SMALL, *options)
    put = 'projects.prune_plugin.training.hooks.atomic_checkpoint_hook:AtomicLocalBackend.put'
    where = dict(type='limit_file_size', size=100_000, target=put, number=2)
    ended = tool('train', CONFIG, '--work-dir', tmp_path / 'full', *options, fault=where)
    ended.refused('epoch_2.pth cannot be written (File too large)')
    assert {'epoch_1.pth', 'latest.pth'} <= files(tmp_path / 'full')
    assert not half_written(tmp_path / 'full')
    tool('train', CONFIG, '--work-dir', tmp_path / 'full', '--resume', *options, code=0)
    tool('train', CONFIG, '--work-dir', tmp_path / 'whole', *options, code=0)
    assert files(tmp_path / 'full') == files(tmp_path / 'whole')
    assert content(tmp_path / 'full/epoch_2.pth') == content(tmp_path / 'whole/epoch_2.pth')


@pytest.mark.faults
@pytest.mark.parametrize(
    'code, said', [('ENOSPC', 'No space left'), ('EROFS', 'Read-only file system')]
)
@fault(
    KIND,
    'full, or read-only, from any moment on',
    'ENOSPC or EROFS from an audit hook for every file opened '
    'for writing and every folder and link made, from each change on',
    'exit code 2 and one sentence; run again, it ends well',
)
def test_refused_from_any_moment_on(tool, dense, config, tmp_path, code, said):
    flags = (config, dense, '--fine-tune', '--cfg-options', *SMALL)
    notes = tmp_path / 'changes.txt'
    where = dict(type='note_changes', folder=tmp_path / 'whole', into=notes)
    tool('analysis_struct', *flags, '--output-dir', tmp_path / 'whole', fault=where, code=0)
    changes = notes.read_text().splitlines()
    grown = [n for n, change in enumerate(changes, 1) if not change.startswith(('os.re', 'os.rm'))]
    assert len(grown) > 20
    for number in grown:
        out = tmp_path / str(number)
        where = dict(type='refuse_at_change', folder=out, number=number, code=code)
        ended = tool('analysis_struct', *flags, '--output-dir', out, fault=where)
        ended.refused(said)
        assert not half_written(out), number
        assert not [name for name in files(out) if name.endswith('.part')], number
    tool('analysis_struct', *flags, '--output-dir', out, code=0)


@pytest.fixture
def read_only(tmp_path):
    """A folder without permission to write."""
    folder = tmp_path / 'read_only'
    folder.mkdir(mode=0o555)
    yield folder
    folder.chmod(0o755)


@fault(
    KIND,
    'the output directory is read-only',
    'mode 0555; as root without the capability to override it',
    'exit code 2 before anything is computed; the sentence names flag and directory',
)
def test_read_only_output(run_strictly, dense, read_only):
    for name, flags in (
        ('analysis_struct', (CONFIG, dense, '--output-dir', read_only)),
        ('train', (CONFIG, '--work-dir', read_only / 'below')),
    ):
        ended = run_strictly(name, *flags, '--cfg-options', *SMALL)
        said = ended.refused('cannot be written (Permission denied)', str(read_only))
        assert said.startswith(f'error: {flags[-2]} ') and 'Epoch(' not in ended.out
    assert not os.listdir(read_only)


@fault(KIND, 'a checkpoint that may not be read', 'mode 0000', 'exit code 2; the sentence says so')
def test_unreadable_checkpoint(run_strictly, dense, tmp_path):
    path = tmp_path / 'secret.pth'
    path.write_bytes(dense.read_bytes())
    path.chmod(0)
    ended = run_strictly(
        'test', CONFIG, path, '--work-dir', tmp_path / 'out', '--cfg-options', *SMALL
    )
    ended.refused('secret.pth cannot be read (Permission denied)')


@pytest.fixture
def run_strictly(tool):
    """``tool``, with permission bits heeded even for root."""

    def run(name: str, *flags):
        return tool(name, *flags, fault=dict(type='heed_permissions'))

    return run

"""The last line of a run names a command that works."""

import shlex
import sys
from types import SimpleNamespace

import pytest
from tool_runs import CONFIG, ROOT, options

sys.path.insert(0, str(ROOT / 'tools'))
from next_step import print_next_step  # noqa: E402

EVALUATED = dict(test_dataloader=dict(dataset=1), test_evaluator=dict(type='Accuracy'))


def arguments(quiet=False, cfg_options=()) -> SimpleNamespace:
    """What a tool has parsed."""
    return SimpleNamespace(config='my config.py', quiet=quiet, cfg_options=cfg_options)


def test_it_is_quoted_and_keeps_what_changes_the_model(capsys, monkeypatch, tmp_path):
    (tmp_path / 'a b.pth').touch()
    monkeypatch.chdir(ROOT)
    words = ('model.depth=2', 'prune_cfg.min_keep=0', 'a=[(1, 2)]', 'train_cfg.max_epochs=1')
    print_next_step(arguments(cfg_options=words), EVALUATED, tmp_path / 'a b.pth')
    assert capsys.readouterr().out == (
        f"next: python tools/test.py 'my config.py' '{tmp_path}/a b.pth' --cfg-options model.depth=2 "
        "'a=[(1, 2)]'\n"
    )
    monkeypatch.chdir(tmp_path)
    print_next_step(arguments(), EVALUATED, 'a b.pth')
    assert (
        capsys.readouterr().out == f"next: python {ROOT}/tools/test.py 'my config.py' 'a b.pth'\n"
    )


@pytest.mark.parametrize(
    ('quiet', 'cfg', 'name'),
    [
        (True, EVALUATED, 'a.pth'),
        (False, dict(test_dataloader=dict()), 'a.pth'),
        (False, EVALUATED, 'gone.pth'),
    ],
)
def test_nothing_is_said(quiet, cfg, name, capsys, tmp_path):
    (tmp_path / 'a.pth').touch()
    print_next_step(arguments(quiet), cfg, tmp_path / name)
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('training', [(), ('--fine-tune', '--fine-tune-epochs', 1)])
def test_what_a_pruning_ends_with_works(training, checkpoint, call_tool, tmp_path):
    words = (CONFIG, checkpoint, '--output-dir', tmp_path / 'out', *training, *options())
    ended = call_tool('analysis_struct', *words)
    assert ended.code == 0, ended.out
    last = [line for line in ended.out.splitlines() if line.startswith('next: ')]
    assert len(last) == 1
    command = shlex.split(last[0].removeprefix('next: '))
    name = 'fine_tuned/latest.pth' if training else 'vit_structured_pruned.pth'
    assert command[0] == 'python' and command[3] == str(tmp_path / 'out' / name)
    ended = call_tool('test', *command[2:], '--work-dir', tmp_path / 'test')
    assert ended.code == 0 and 'accuracy' in ended.out, ended.out


def test_a_dry_run_ends_without_it(checkpoint, call_tool):
    ended = call_tool('analysis_struct', CONFIG, checkpoint, '--dry-run', *options())
    assert ended.code == 0 and 'next: ' not in ended.out

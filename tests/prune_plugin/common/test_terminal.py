"""What a terminal shows of the log, and what only the log file has."""

import logging
import types

import pytest
import rich
from mmengine.logging import MMLogger, print_log

from projects.prune_plugin.common import terminal
from projects.prune_plugin.common.terminal import (
    Verbosity,
    hidden_from_terminal,
    watch,
    without_bars,
)


@pytest.fixture
def logged(capsys, tmp_path, monkeypatch):
    """``logged(verbosity, speakers)``: what the terminal and what the file show of one line of each."""
    monkeypatch.setattr(terminal.TERMINAL, 'verbosity', None)
    monkeypatch.setattr(rich.get_console(), 'quiet', False)

    def make(verbosity, *modules: str, level=logging.INFO, hide=False):
        MMLogger._instance_dict.clear()
        file = tmp_path / f'{len(list(tmp_path.iterdir()))}.log'
        logger = watch(MMLogger.get_instance('test_terminal', log_file=str(file)))
        if verbosity is not None:
            terminal.set_verbosity(verbosity)
        capsys.readouterr()
        for name in modules:
            module = types.ModuleType(name)
            module.print_log, module.level = print_log, level
            exec('def say(text): print_log(text, "current", level)', module.__dict__)
            if hide:
                with hidden_from_terminal():
                    module.say(f'by {name}')
            else:
                module.say(f'by {name}')
        shown = capsys.readouterr().out
        logger.handlers[-1].close()
        written = file.read_text()
        assert all(f'by {name}\n' in written for name in modules)
        return [name for name in modules if f'by {name}\n' in shown]

    yield make
    MMLogger._instance_dict.clear()


OURS = 'projects.prune_plugin.workflows.prune'
ITERATIONS = 'mmengine.hooks.logger_hook'
INIT = 'mmengine.model.base_module'
COCO = 'mmdet.evaluation.metrics.coco_metric'
THEIRS = 'my_package.models'
ALL = (OURS, ITERATIONS, INIT, COCO, THEIRS, 'mmdet', 'mmengine_like')


@pytest.mark.parametrize(
    ('verbosity', 'expected'),
    [
        (None, ALL),
        (Verbosity.ALL, ALL),
        (Verbosity.STEPS, (OURS, ITERATIONS, COCO, THEIRS, 'mmengine_like')),
        (Verbosity.RESULT, ()),
    ],
)
def test_a_terminal_shows_the_steps_and_a_file_all(logged, verbosity, expected):
    assert logged(verbosity, *ALL) == list(expected)


@pytest.mark.parametrize('verbosity', Verbosity)
def test_warnings_are_always_shown(logged, verbosity):
    assert logged(verbosity, INIT, OURS, level=logging.WARNING) == [INIT, OURS]
    assert logged(verbosity, INIT, level=logging.WARNING, hide=True) == [INIT]


def test_where_a_run_goes_on_from_is_a_step(logged, capsys):
    logged(Verbosity.STEPS, OURS)
    runner = types.ModuleType('mmengine.runner.runner')
    runner.print_log = print_log
    exec('def say(text): print_log(text, "current")', runner.__dict__)
    runner.say('resumed epoch: 3, iter: 24')
    runner.say('Load checkpoint from a.pth')
    assert [line.partition(' - INFO - ')[2] for line in capsys.readouterr().out.splitlines()] == [
        'resumed epoch: 3, iter: 24'
    ]


def test_what_is_hidden_for_a_while(logged):
    assert logged(None, OURS, hide=True) == []
    assert logged(Verbosity.STEPS, OURS, hide=True) == []
    assert logged(Verbosity.ALL, OURS, hide=True) == [OURS]


def test_progress_bars_are_for_steps(logged):
    for verbosity, quiet in zip(Verbosity, (True, False, False), strict=True):
        logged(verbosity, OURS)
        assert rich.get_console().quiet is quiet


IDLE = (
    ('mmengine.fileio.file_client', '"FileClient" will be deprecated in future. Please use io functions'),
    ('mmengine.fileio.file_client', '"HardDiskBackend" is the alias of "LocalBackend" and the former'),
    ('mmengine.optim.optimizer.default_constructor',
     'code_weights is skipped since its requires_grad=False'),
)  # fmt: skip


@pytest.mark.parametrize('verbosity', [None, *Verbosity])
@pytest.mark.parametrize(('module', 'text'), IDLE)
def test_warnings_that_nobody_can_mend_are_for_the_file(
    logged, capsys, tmp_path, verbosity, module, text
):
    logged(verbosity, OURS)
    speakers = [types.ModuleType(name) for name in (module, 'my_package.models')]
    for speaker in speakers:
        speaker.print_log = print_log
        exec('def say(text): print_log(text, "current", 30)', speaker.__dict__)
    MMLogger._instance_dict.clear()
    logger = watch(MMLogger.get_instance('test_terminal', log_file=str(tmp_path / 'a.log')))
    capsys.readouterr()
    speakers[0].say(text)
    shown = verbosity in (None, Verbosity.ALL)
    assert (text in capsys.readouterr().out) == shown
    logger.handlers[-1].close()
    assert text in (tmp_path / 'a.log').read_text()
    speakers[1].say(f'{text}!')  # of one's own module
    assert f'{text}!' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('verbosity', 'shown'), [(Verbosity.ALL, 4), (Verbosity.STEPS, 0), (None, 4)]
)
def test_bars_of_a_library_are_shown_with_all(monkeypatch, verbosity, shown):
    monkeypatch.setattr(terminal.TERMINAL, 'verbosity', verbosity)
    drawn = []
    library = types.ModuleType('library')
    library.tqdm = theirs = types.SimpleNamespace(
        tqdm=lambda items, leave: drawn.extend(items) or items
    )
    with without_bars(library):
        assert list(library.tqdm.tqdm(range(4), leave=False)) == [0, 1, 2, 3]
    assert len(drawn) == shown and library.tqdm is theirs

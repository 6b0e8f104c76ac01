"""``runner_type='PruneRunner'`` told to resume: it never prunes freshly initialised weights."""

import json
import shutil

import pytest
import torch
from mmengine.config import Config, DictAction
from tool_runs import CONFIG, QUICK, SMALL

from projects.prune_plugin import UserError
from projects.prune_plugin.checkpoints.checkpoint_file import load_file
from projects.prune_plugin.workflows.prune_runner import PruneRunner


def config(work_dir, **more) -> Config:
    """As mmdet's ``tools/train.py --resume`` hands it over: without ``load_from``."""
    cfg = Config.fromfile(CONFIG)
    read = type('Read', (), {'options': {}})()
    DictAction((), 'options')(None, read, list((*SMALL, *QUICK)))
    cfg.merge_from_dict(read.options)
    cfg.merge_from_dict(dict(runner_type='PruneRunner', work_dir=str(work_dir), **more))
    cfg.prune_cfg.recovery = dict(epochs=1)
    return cfg


def test_with_nothing_to_resume(tmp_path):
    runner = PruneRunner.from_cfg(config(tmp_path / 'work', resume=True, load_from=None))
    with pytest.raises(UserError, match='no checkpoint and no .*_pruned.pth.*freshly initialised'):
        runner.train()
    assert not list((tmp_path / 'work').rglob('*.pth'))


def test_killed_before_the_first_epoch(tmp_path, checkpoint):
    """It goes on with the pruned file that lies there, and doesn't write another."""
    work = tmp_path / 'work'
    first = PruneRunner.from_cfg(config(work, load_from=str(checkpoint)))
    first.train()
    pruned = work / 'vit_structured_pruned.pth'
    before = pruned.read_bytes()
    for path in (*work.glob('epoch_*.pth'), work / 'last_checkpoint', work / 'latest.pth'):
        path.unlink(missing_ok=True)
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    PruneRunner.from_cfg(config(work, resume=True, load_from=None)).train()
    assert pruned.read_bytes() == before
    trained = load_file(work / 'latest.pth')
    for name, weight in load_file(pruned)['state_dict'].items():
        assert trained['state_dict'][name].shape == weight.shape
    drift = max(
        float((trained['state_dict'][n] - w).abs().max())
        for n, w in load_file(pruned)['state_dict'].items()
        if torch.is_floating_point(w)
    )
    assert drift < 0.1  # an epoch from there; from other random weights it would be far more
    assert json.loads((work / 'report.json').read_text())['recovered']['epochs'] == 1

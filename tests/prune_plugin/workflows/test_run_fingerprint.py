"""Which runs count as the same, now and by what version 0.1.0 has written."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from projects.prune_plugin.common.json_csv import plain
from projects.prune_plugin.methods.pruners.layer_progress import LayerProgress
from projects.prune_plugin.workflows.run_fingerprint import (
    evaluation_fingerprint,
    pruning_fingerprint,
    rounds_fingerprint,
    weights_of,
)

PRUNE = dict(type='WeightPruner', include=['a'], budget=dict(type='weights', ratio=0.3))


def config(**more) -> Config:
    return Config(
        dict(
            model=dict(type='M', width=3),
            test_dataloader=dict(batch_size=2),
            prune_cfg=PRUNE,
            **more,
        )
    )


@pytest.fixture
def checkpoint(tmp_path) -> str:
    path = tmp_path / 'model.pth'
    torch.save(dict(state_dict=dict(w=torch.arange(5.0))), path)
    return str(path)


def test_a_checkpoint_is_told_by_its_content(checkpoint, tmp_path):
    before = weights_of(checkpoint)
    shutil.copyfile(checkpoint, tmp_path / 'copy.pth')  # elsewhere, and at another time
    assert weights_of(tmp_path / 'copy.pth') == before == plain(before)
    torch.save(dict(state_dict=dict(w=torch.arange(5.0) + 1)), checkpoint)
    after = weights_of(checkpoint)
    assert after != before and after['size'] == before['size']
    assert weights_of(None) is None


def test_a_checkpoint_without_checksums_is_told_by_its_time(tmp_path):
    path = tmp_path / 'old.pth'
    torch.save(dict(a=1), path, _use_new_zipfile_serialization=False)
    before = weights_of(path)
    assert weights_of(path) == before
    os.utime(path, (1, 1))
    assert weights_of(path) != before


def evaluated(cfg: Config, path: str | None, samples: int | None = None, **more):
    return evaluation_fingerprint(cfg, path, samples, **more)


def test_what_an_evaluation_depends_on(checkpoint):
    one = evaluated(config(), checkpoint)
    assert one.matches(json.loads(json.dumps(one.parts)))
    assert one.matches(evaluated(config(work_dir='w', optim_wrapper=dict(lr=1)), checkpoint).parts)
    other = config()
    other.test_dataloader.batch_size = 3
    for same in (
        evaluated(other, checkpoint),
        evaluated(config(), None),
        evaluated(config(), checkpoint, 4),
        evaluated(config(), checkpoint, split='val'),
    ):
        assert not one.matches(same.parts)
    assert one.differing(evaluated(other, None).parts) == ['config', 'checkpoint']


def test_what_a_pruned_model_depends_on(checkpoint):
    data = dict(batch_size=1)
    one = pruning_fingerprint(config(), checkpoint, 0.3, data)
    assert one.matches(
        pruning_fingerprint(config(train_cfg=dict(a=1)), checkpoint, 0.3, data).parts
    )
    trained = config()
    trained.prune_cfg.recovery = dict(epochs=9)
    assert one.matches(pruning_fingerprint(trained, checkpoint, 0.3, data).parts)
    chosen = config()
    chosen.prune_cfg.include = ['b']
    for name, other in dict(
        prune_cfg=pruning_fingerprint(chosen, checkpoint, 0.3, data),
        ratio=pruning_fingerprint(config(), checkpoint, 0.4, data),
        checkpoint=pruning_fingerprint(config(), None, 0.3, data),
        data=pruning_fingerprint(config(), checkpoint, 0.3),
        round=pruning_fingerprint(config(), checkpoint, 0.3, data, round=2),
    ).items():
        assert one.differing(other.parts) == [name]


# What version 0.1.0 wrote


def test_finished_layers_of_the_old_version_are_taken(checkpoint, tmp_path):
    cfg, data = config(), dict(batch_size=1, shape=(1, 2))
    old = {
        'prune_cfg': cfg.prune_cfg.to_dict(), 'ratio': 0.3, 'checkpoint': checkpoint,
        'model': cfg.model.to_dict(), 'data': data, 'ranks': 1, 'round': dict(number=2),
    }  # fmt: skip
    found = pruning_fingerprint(cfg, checkpoint, 0.3, data, round=dict(number=2))
    layers = {'w': (torch.ones(2), torch.ones(2, dtype=torch.bool))}
    LayerProgress(tmp_path / 'p', old).save(0, layers)
    assert LayerProgress(tmp_path / 'p', found.parts, found.older).load(0)['w']['weight'].sum() == 2
    other = pruning_fingerprint(cfg, checkpoint, 0.4, data, round=dict(number=2))
    assert LayerProgress(tmp_path / 'p', other.parts, other.older).load(0) is None
    LayerProgress(tmp_path / 'p', found.parts, found.older).save(0, layers)
    assert torch.load(tmp_path / 'p' / '0000.pth')['key'] == json.dumps(found.parts, sort_keys=True)


def test_histories_of_the_old_version_are_taken(checkpoint):
    cfg, rounds = config(), [dict(number=1, ratio=0.3)]
    old = {
        'prune_cfg': cfg.prune_cfg.to_dict(), 'checkpoint': checkpoint,
        'model': cfg.model.to_dict(), 'rounds': rounds, 'training': True,
    }  # fmt: skip
    found = rounds_fingerprint(cfg, checkpoint, rounds, True)
    assert found.parts.keys() == old.keys() and found.matches(old) and not found.differing(old)
    assert found.differing({**old, 'training': False}) == ['training']
    assert found.differing({**found.parts, 'rounds': []}) == ['rounds']
    assert found.differing({}) == list(found.parts)


def test_evaluations_of_the_old_version_are_taken(checkpoint):
    """Made by its code: the weights go by place and time, and all other keys of the config count."""
    import hashlib

    from projects.prune_plugin import __version__

    cfg, file = config(work_dir='w'), os.stat(checkpoint)
    model = dict(model=cfg.model.to_dict(), test_dataloader=cfg.test_dataloader.to_dict())
    text = json.dumps([model, [3, 8]], sort_keys=True)
    old = dict(
        config=hashlib.sha256(text.encode()).hexdigest(), samples=5, version=__version__,
        checkpoint=[str(Path(checkpoint).absolute()), file.st_size, file.st_mtime_ns],
    )  # fmt: skip
    assert evaluated(cfg, checkpoint, 5, older=[[3, 8]], input_shape=[3, 8]).matches(old)
    assert not evaluated(cfg, checkpoint, 5, older=[[3, 9]], input_shape=[3, 9]).matches(old)

"""A training that has nothing left to do says so, by epochs and by iterations."""

from types import SimpleNamespace

import pytest
from mmengine.logging import MMLogger
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from projects.prune_plugin.training.hooks import FinishedTrainingHook


def loop_of(cls, done: int, asked: int):
    """A loop that has got so far."""
    loop = cls.__new__(cls)
    loop._epoch, loop._max_epochs = (done, asked) if cls is EpochBasedTrainLoop else (0, 1)
    loop._iter, loop._max_iters = (done, asked) if cls is IterBasedTrainLoop else (0, 1)
    return loop


@pytest.mark.parametrize(
    ('cls', 'done', 'asked', 'said'),
    [
        (
            EpochBasedTrainLoop,
            3,
            1,
            'already at epoch 3 of 1: nothing to train; raise train_cfg.max_epochs',
        ),
        (EpochBasedTrainLoop, 3, 3, 'already at epoch 3 of 3: nothing to train'),
        (EpochBasedTrainLoop, 2, 3, None),
        (EpochBasedTrainLoop, 0, 1, None),
        (
            IterBasedTrainLoop,
            8,
            8,
            'already at iteration 8 of 8: nothing to train; raise train_cfg.max_iter',
        ),
        (IterBasedTrainLoop, 7, 8, None),
    ],
)
def test_said_where_nothing_is_left(cls, done, asked, said, capsys):
    MMLogger._instance_dict.clear()
    FinishedTrainingHook().before_train(SimpleNamespace(train_loop=loop_of(cls, done, asked)))
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert (said in text) if said else text == ''

"""Top-k accuracy against counting by hand, on one rank and on two."""

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from projects.prune_plugin.common.errors import UserError
from projects.vit.evaluation import Accuracy


def samples(num, num_classes, seed=0):
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.random((num, num_classes)))
    labels = torch.from_numpy(rng.integers(0, num_classes, num))
    return [{'pred_score': s, 'gt_label': y} for s, y in zip(scores, labels, strict=True)]


def by_hand(predictions, k):
    hits = 0
    for p in predictions:
        better = sum(score > p['pred_score'][p['gt_label']] for score in p['pred_score'])
        hits += int(better < k)
    return 100 * hits / len(predictions)


def test_against_counting():
    predictions = samples(97, 20)
    metric = Accuracy(topk=(1, 5))
    for start in range(0, 97, 32):
        metric.process(None, predictions[start : start + 32])
    result = metric.evaluate(97)
    assert result == {
        'accuracy/top1': pytest.approx(by_hand(predictions, 1)),
        'accuracy/top5': pytest.approx(by_hand(predictions, 5)),
    }


def test_k_is_clipped_to_the_classes():
    metric = Accuracy(topk=(1, 3, 5, 10))
    metric.process(None, samples(8, 3))
    assert metric.evaluate(8).keys() == {'accuracy/top1', 'accuracy/top3'}


def test_log_line(monkeypatch):
    lines = []
    logger = type('Logger', (), {'info': lambda self, text: lines.append(text)})()
    monkeypatch.setattr(
        'projects.vit.evaluation.accuracy.MMLogger.get_current_instance', lambda: logger
    )
    metric = Accuracy(topk=1)
    metric.process(None, [{'pred_score': torch.tensor([0.1, 0.9]), 'gt_label': torch.tensor(1)}])
    metric.evaluate(1)
    assert lines == ['Acc@1 100.00 (1 images)']


@pytest.mark.parametrize('topk', [0, (), (1, -5), (1.5,)])
def test_bad_topk(topk):
    with pytest.raises(UserError, match='topk'):
        Accuracy(topk=topk)


def test_missing_labels():
    with pytest.raises(UserError, match='needs a gt_label'):
        Accuracy().process(None, [{'pred_score': torch.ones(2), 'gt_label': None}])


def worker(rank, folder):
    """Evaluate every second of 8 predictions, the last of which is padding."""
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    predictions = samples(7, 4)
    metric = Accuracy(topk=(1, 2))
    metric.process(None, (predictions + predictions[:1])[rank::2])
    torch.save(metric.evaluate(7), f'{folder}/result{rank}.pth')
    torch.distributed.destroy_process_group()


def test_two_ranks_count_padding_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mp.spawn(worker, args=(str(tmp_path),), nprocs=2)
    predictions = samples(7, 4)
    for rank in range(2):
        result = torch.load(tmp_path / f'result{rank}.pth')
        assert result['accuracy/top1'] == pytest.approx(by_hand(predictions, 1))
        assert result['accuracy/top2'] == pytest.approx(by_hand(predictions, 2))
    assert not (tmp_path / '.dist_test').exists()

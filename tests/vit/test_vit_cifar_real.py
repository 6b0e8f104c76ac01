"""The real CIFAR-10, where it lies on this machine."""

import os
from pathlib import Path

import pytest

from projects.prune_plugin.common.errors import DataNotFoundError
from projects.vit.datasets import CIFAR10

ROOT = os.environ.get('CIFAR10_ROOT') or str(Path(__file__).parents[3] / 'shared' / 'data')


def load(split, **kwargs):
    try:
        return CIFAR10(ROOT, split, **kwargs)
    except DataNotFoundError as err:
        pytest.skip(str(err))


def test_test_split_is_complete():
    dataset = load('test')
    assert len(dataset) == 10_000
    assert [dataset.labels.count(label) for label in range(10)] == [1000] * 10
    assert abs(dataset.images.float().mean().item() / 255 - 0.4763) < 0.005


def test_train_split_is_complete():
    assert len(load('train', indices=-64)) == 64
    assert len(load('train', indices=[0, 49_999])) == 2

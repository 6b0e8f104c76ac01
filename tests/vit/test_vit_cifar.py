"""CIFAR-10 and CIFAR-100 in every form they are read in, and what is said when they can't be."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
import torchvision
from mmengine.registry import DATASETS

from projects.prune_plugin.common.errors import DataNotFoundError, UserError
from projects.vit.datasets import CIFAR10, CIFAR100
from projects.vit.datasets.cifar_classes import CIFAR10_CLASSES, CIFAR100_CLASSES


def assert_holds(dataset, tiny, rows=None):
    """Same images and labels, in the same order."""
    rows = list(range(len(tiny.labels))) if rows is None else rows
    assert len(dataset) == len(rows)
    for item, row in zip((dataset[i] for i in range(len(dataset))), rows, strict=True):
        assert item['inputs'].dtype == torch.uint8
        assert torch.equal(item['inputs'], torch.from_numpy(tiny.images[row]))
        assert item['gt_label'] == tiny.labels[row]


def write_meta(path, key) -> dict:
    """Write the file with the class names that torchvision wants to see, and describe it."""
    path.write_bytes(pickle.dumps({key: ['name']}))
    return {
        'filename': path.name,
        'key': key,
        'md5': hashlib.md5(path.read_bytes()).hexdigest(),
    }


@pytest.mark.parametrize('struct', [False, True], ids=['bytes', 'hub_struct'])
@pytest.mark.parametrize('image', ['image', 'img'])
def test_parquet_folder(tmp_path, tiny10, image, struct):
    tiny10.parquet(tmp_path / 'cifar10_train.parquet', image=image, struct=struct)
    tiny10.parquet(tmp_path / 'cifar10_test.parquet', image=image, struct=struct, rows=[3, 1])
    assert_holds(CIFAR10(str(tmp_path), 'train'), tiny10)
    assert_holds(CIFAR10(str(tmp_path), 'test'), tiny10, rows=[3, 1])


def test_parquet_prefers_fine_label(tmp_path, tiny100):
    path = tiny100.parquet(tmp_path / 'train.parquet', image='img', label='fine_label')
    assert_holds(CIFAR100(str(path)), tiny100)
    assert CIFAR100(str(path)).metainfo['classes'] == CIFAR100_CLASSES


def test_parquet_shards_of_the_hub_layout(tmp_path, tiny10):
    folder = tmp_path / 'plain_text'
    tiny10.parquet(folder / 'train-00001-of-00002.parquet', rows=range(5, 12))
    tiny10.parquet(folder / 'train-00000-of-00002.parquet', rows=range(5))
    assert_holds(CIFAR10(str(tmp_path)), tiny10)


def test_each_cifar_takes_its_own_parquet(tmp_path, tiny10, tiny100):
    tiny10.parquet(tmp_path / 'cifar10_train.parquet')
    tiny100.parquet(tmp_path / 'cifar100_train.parquet')
    assert_holds(CIFAR10(str(tmp_path)), tiny10)
    assert_holds(CIFAR100(str(tmp_path)), tiny100)


def test_one_cifar_is_not_taken_for_the_other(tmp_path, tiny10):
    tiny10.parquet(tmp_path / 'cifar10_train.parquet')
    with pytest.raises(DataNotFoundError, match='no train split of CIFAR-100'):
        CIFAR100(str(tmp_path))


def test_single_parquet_is_for_the_split_in_its_name(tmp_path, tiny10):
    named = tiny10.parquet(tmp_path / 'my_test.parquet')
    neutral = tiny10.parquet(tmp_path / 'images.parquet')
    assert_holds(CIFAR10(str(named), 'test'), tiny10)
    assert_holds(CIFAR10(str(neutral), 'train'), tiny10)
    with pytest.raises(DataNotFoundError, match='no train split'):
        CIFAR10(str(named), 'train')


def test_torchvision_cifar10(tmp_path, tiny10, monkeypatch):
    cls = torchvision.datasets.CIFAR10
    folder = tmp_path / cls.base_folder
    md5 = tiny10.pickled(folder / 'data_batch_1', 'labels')
    monkeypatch.setattr(cls, 'train_list', [['data_batch_1', md5]])
    monkeypatch.setattr(cls, 'test_list', [])
    monkeypatch.setattr(cls, 'meta', write_meta(folder / 'batches.meta', 'label_names'))
    assert_holds(CIFAR10(str(tmp_path)), tiny10)
    assert_holds(CIFAR10(str(folder)), tiny10)


def test_torchvision_cifar100(tmp_path, tiny100, monkeypatch):
    cls = torchvision.datasets.CIFAR100
    folder = tmp_path / cls.base_folder
    md5 = tiny100.pickled(folder / 'test', 'fine_labels')
    monkeypatch.setattr(cls, 'train_list', [])
    monkeypatch.setattr(cls, 'test_list', [['test', md5]])
    monkeypatch.setattr(cls, 'meta', write_meta(folder / 'meta', 'fine_label_names'))
    assert_holds(CIFAR100(str(tmp_path), 'test'), tiny100)


def test_damaged_torchvision_folder(tmp_path, tiny10):
    tiny10.pickled(tmp_path / 'cifar-10-batches-py' / 'data_batch_1', 'labels')
    with pytest.raises(UserError, match='incomplete or damaged') as caught:
        CIFAR10(str(tmp_path))
    assert not isinstance(caught.value, DataNotFoundError)


@pytest.mark.parametrize('names', [CIFAR10_CLASSES, [str(i) for i in range(10)]])
def test_image_folder(tmp_path, tiny10, names):
    tiny10.folder(tmp_path / 'train', names)
    (tmp_path / 'train' / names[0] / 'notes.txt').write_text('not an image')
    dataset = CIFAR10(str(tmp_path))
    # going round the classes: the first image of each class, by label, then the second ones
    order = sorted(range(12), key=lambda i: (i >= 10, tiny10.labels[i]))
    assert_holds(dataset, tiny10, rows=order)
    assert sorted(CIFAR10(str(tmp_path), indices=10).labels) == list(range(10))


def test_image_folder_of_a_few_cifar100_classes(tmp_path, tiny100):
    tiny100.folder(tmp_path / 'test', CIFAR100_CLASSES, suffix='.PNG')
    dataset = CIFAR100(str(tmp_path), 'test')
    assert sorted(dataset.labels) == sorted(tiny100.labels)


def test_image_folder_with_unknown_class(tmp_path, tiny10):
    tiny10.folder(tmp_path / 'train', [f'thing{i}' for i in range(10)])
    with pytest.raises(UserError, match='CIFAR-10 does not know: thing0'):
        CIFAR10(str(tmp_path))


@pytest.mark.parametrize(
    ('indices', 'rows'),
    [(3, [0, 1, 2]), (-2, [10, 11]), ([5, 0], [5, 0]), (12, range(12)), (-12, range(12))],
)
def test_indices(tmp_path, tiny10, indices, rows):
    path = tiny10.parquet(tmp_path / 'train.parquet')
    assert_holds(CIFAR10(str(path), indices=indices), tiny10, rows=list(rows))


@pytest.mark.parametrize('indices', [0, 13, -13, [], [12], [-1], [0.5], 'all', True])
def test_bad_indices(tmp_path, tiny10, indices):
    path = tiny10.parquet(tmp_path / 'train.parquet')
    with pytest.raises(UserError, match='indices'):
        CIFAR10(str(path), indices=indices)


def test_only_the_rows_asked_for_are_decoded(tmp_path, tiny10, monkeypatch):
    monkeypatch.setattr(tiny10, 'png', lambda i: b'broken' if i else type(tiny10).png(tiny10, i))
    path = tiny10.parquet(tmp_path / 'train.parquet')
    assert_holds(CIFAR10(str(path), indices=1), tiny10, rows=[0])
    with pytest.raises(UserError, match=r'image 1 of .*train.parquet can not be decoded'):
        CIFAR10(str(path))


@pytest.mark.parametrize('root', ['absent', 'empty', 'absent.parquet'])
def test_missing_data_says_what_would_be_valid(tmp_path, root):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataNotFoundError, match='holds no test split of CIFAR-10; valid are') as e:
        CIFAR10(str(tmp_path / root), 'test')
    assert root in str(e.value) and 'cifar-10-batches-py' in str(e.value)


def test_unknown_split(tmp_path):
    with pytest.raises(UserError, match="split='val' is unknown; 'train' and 'test' are valid"):
        CIFAR10(str(tmp_path), 'val')


def test_labels_of_another_data_set(tmp_path, tiny100):
    path = tiny100.parquet(tmp_path / 'train.parquet')
    with pytest.raises(UserError, match=r'CIFAR10 has the classes 0\.\.9'):
        CIFAR10(str(path), indices=1)


def test_damaged_parquet(tmp_path, tiny10):
    path = tiny10.parquet(tmp_path / 'train.parquet')
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match='not a readable parquet file'):
        CIFAR10(str(path))


def test_parquet_without_a_label_column(tmp_path, tiny10):
    path = tiny10.parquet(tmp_path / 'train.parquet', label='class')
    with pytest.raises(UserError, match='columns image, class; one named label or labels'):
        CIFAR10(str(path))


def test_images_of_another_size(tmp_path, tiny10):
    tiny10.images = np.zeros((12, 3, 16, 24), dtype=np.uint8)
    path = tiny10.parquet(tmp_path / 'train.parquet')
    with pytest.raises(UserError, match='has 24x16 pixels; 32x32 would be valid'):
        CIFAR10(str(path))


def test_registered_with_transforms(tmp_path, tiny10):
    path = tiny10.parquet(tmp_path / 'train.parquet')
    flip = {'type': 'torchvision/RandomHorizontalFlip', 'p': 1.0}
    dataset = DATASETS.build({'type': 'CIFAR10', 'data_root': str(path), 'transforms': [flip]})
    assert torch.equal(dataset[2]['inputs'], torch.from_numpy(tiny10.images[2]).flip(-1))
    dataset[2]['inputs'].zero_()
    assert torch.equal(dataset[2]['inputs'], torch.from_numpy(tiny10.images[2]).flip(-1))

"""Safetensors files tensor by tensor: as the format's own package reads and writes them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from projects.prune_plugin.checkpoints.shards import ShardedWeights, ShardWriter, plan_shards
from projects.prune_plugin.checkpoints.shards.header import DTYPES
from projects.prune_plugin.common.errors import UserError

TENSORS = {
    'a': torch.arange(12.0).view(3, 4),
    'b.weight': torch.randn(5, 2).bfloat16(),
    'c': torch.tensor(3),
    'empty': torch.zeros(0, 4),
    'd': torch.arange(7, dtype=torch.int8),
}


def kinds(tensors):
    return {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()}


def test_what_is_written_is_read_by_both(tmp_path):
    shards = plan_shards(kinds(TENSORS), 60)
    assert [list(s) for s in shards.values()] == [['a'], ['b.weight', 'c', 'empty', 'd']]
    writer = ShardWriter(tmp_path, shards)
    for name in reversed(TENSORS):
        writer.write(name, TENSORS[name])
    writer.sync()
    assert writer.bytes_written == sum(t.nbytes for t in TENSORS.values())
    theirs = {}
    for file in shards:
        theirs |= load_file(tmp_path / file)
    ours = ShardedWeights(tmp_path)
    assert set(ours) == set(theirs) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(ours.read(name), tensor) and torch.equal(theirs[name], tensor)
        assert ours.read(name).dtype == tensor.dtype
    ours.prefetch(TENSORS)
    index = json.loads((tmp_path / 'model.safetensors.index.json').read_text())
    assert index['metadata']['total_size'] == writer.bytes_written


def test_all_types_that_the_package_writes(tmp_path):
    tensors = {name: torch.ones(3).to(dtype) for name, dtype in DTYPES.items()}
    save_file(tensors, tmp_path / 'model.safetensors')
    found = ShardedWeights(tmp_path)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found.read(name).float(), tensor.float())


def test_a_file_of_the_same_tensors_is_gone_on_with(tmp_path):
    shards = plan_shards(kinds({'a': TENSORS['a'], 'd': TENSORS['d']}), 10**6)
    ShardWriter(tmp_path, shards).write('a', TENSORS['a'])
    writer = ShardWriter(tmp_path, shards)
    writer.write('d', TENSORS['d'])
    assert torch.equal(ShardedWeights(tmp_path).read('a'), TENSORS['a'])
    with pytest.raises(ValueError, match='is not what'):
        writer.write('d', TENSORS['d'].float())
    other = plan_shards(kinds({'a': TENSORS['a']}), 10**6)
    ShardWriter(tmp_path, other)
    assert not ShardedWeights(tmp_path).read('a').any(), 'made anew'


def head(entries, data=b'', length=None):
    text = json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, 'little') + text + data


A = dict(dtype='F32', shape=[2], data_offsets=[0, 8])


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'\x00' * 8,
        head({'a': A}, b'\x00' * 7),
        head({'a': A}, b'\x00' * 8, 2**40),
        head({'a': dict(A, shape=[2**60])}, b'\x00' * 8),
        head({'a': dict(A, shape=[-2], data_offsets=[8, 0])}, b'\x00' * 8),
        head({'a': dict(A, dtype='F128')}, b'\x00' * 8),
        head({'a': dict(A, shape='22')}, b'\x00' * 8),
        head({'a': 3}),
        head([1, 2]),
    ],
)
def test_damaged_files_are_refused(content, tmp_path):
    (tmp_path / 'model.safetensors').write_bytes(content)
    with pytest.raises(UserError, match='model.safetensors is damaged'):
        ShardedWeights(tmp_path)


def test_a_file_that_is_cut_short_meanwhile(tmp_path):
    save_file({'a': TENSORS['a']}, tmp_path / 'model.safetensors')
    weights = ShardedWeights(tmp_path)
    with open(tmp_path / 'model.safetensors', 'r+b') as file:
        file.truncate(80)
    with pytest.raises(UserError, match='it ends before the tensor does'):
        weights.read('a')


@pytest.mark.parametrize(
    'index, said',
    [
        ({'weight_map': {'a': '../other.safetensors'}}, 'no file of its folder'),
        ({'weight_map': {'b': 'x.safetensors'}}, 'lacks b'),
        ({'weights': {}}, 'cannot be read as an index'),
    ],
)
def test_an_index_that_makes_no_sense(index, said, tmp_path):
    save_file({'a': TENSORS['a']}, tmp_path / 'x.safetensors')
    (tmp_path / 'model.safetensors.index.json').write_text(json.dumps(index))
    with pytest.raises(UserError, match=said):
        ShardedWeights(tmp_path)
    with pytest.raises(UserError, match='neither'):
        ShardedWeights(tmp_path / 'nowhere')

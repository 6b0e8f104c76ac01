"""Small files that claim much are refused before anything is made of it."""

import time
import zipfile

import pytest
import torch
from torch import nn

from projects.prune_plugin import UserError, build_pruner, slim
from projects.prune_plugin.checkpoints.checkpoint_file import load_file
from projects.prune_plugin.checkpoints.packed_masks import pack_masks


def weights():
    return nn.Linear(3, 2).state_dict()


def refused(path, message):
    start = time.perf_counter()
    with pytest.raises(UserError, match=message):
        load_file(path)
    assert time.perf_counter() - start < 20  # a hang would take minutes


@pytest.mark.parametrize('size', [10**13, 4000])
def test_one_value_shown_as_many(tmp_path, size):
    torch.save(
        dict(state_dict=dict(weights(), more=torch.zeros(1).expand(size))), tmp_path / 'a.pth'
    )
    refused(tmp_path / 'a.pth', r'a tensor of shape .* takes [\d,]+ bytes, and the file has')


def test_a_small_expanded_buffer_is_fine(tmp_path):
    content = dict(state_dict=dict(weights(), ids=torch.arange(5).expand(1, -1)))
    torch.save(content, tmp_path / 'a.pth')
    assert load_file(tmp_path / 'a.pth')['state_dict']['ids'].shape == (1, 5)


@pytest.mark.parametrize('kind', [list, tuple, dict])
def test_containers_shared_over_and_over(tmp_path, kind):
    value = ['x'] * 2
    for _ in range(60):
        value = {'a': value, 'b': value} if kind is dict else kind([value, value])
    torch.save(dict(meta=dict(x=value), state_dict=weights()), tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', 'containers hold themselves or each other')


@pytest.mark.parametrize('kind', [list, dict])
def test_containers_that_hold_themselves(tmp_path, kind):
    value = kind()
    value.append(value) if kind is list else value.update(me=value)
    torch.save(dict(meta=dict(x=value), state_dict=weights()), tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', 'containers hold themselves or each other')


def test_entries_that_overlap(tmp_path):
    """Both of two directory entries name the same bytes, as zip bombs do."""
    torch.save(dict(state_dict=dict(weights(), big=torch.zeros(100_000))), tmp_path / 'a.pth')
    data = bytearray((tmp_path / 'a.pth').read_bytes())
    with zipfile.ZipFile(tmp_path / 'a.pth') as archive:
        entries = {entry.filename.rpartition('/')[2]: entry for entry in archive.infolist()}
        big = max(archive.infolist(), key=lambda entry: entry.file_size)
    small = entries['version']
    place = data.rindex(small.filename.encode()) - 46  # its record in the central directory
    data[place + 20 : place + 28] = big.file_size.to_bytes(4, 'little') * 2
    (tmp_path / 'a.pth').write_bytes(data)
    refused(tmp_path / 'a.pth', 'truncated or damaged')


def test_a_group_of_billions(tmp_path):
    model = nn.Sequential(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True))
    state = build_pruner(dict(budget=dict(type='params', ratio=0.3))).plan(model).state
    data = state.to_dict()
    next(iter(data['groups'].values()))['size'] = 3_000_000_000
    content = dict(meta=dict(prune_state=data), state_dict=slim(model, state).state_dict())
    torch.save(content, tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', 'its size is 3000000000; at most')


def test_bits_of_a_mask_repeated(tmp_path):
    keep = torch.ones(64, 64, dtype=torch.bool)
    masks = pack_masks({'weight': keep})
    masks['weight']['bits'] = torch.full((1,), 255, dtype=torch.uint8).expand(512)
    content = dict(state_dict=dict(weight=torch.zeros(64, 64)), masks=masks, meta={})
    torch.save(content, tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', 'its bits are one value, repeated')


@pytest.mark.parametrize('key', ['model', 'model_state_dict', 'net'])
def test_weights_of_other_tools(tmp_path, key):
    torch.save({key: weights(), 'epoch': 3}, tmp_path / 'a.pth')
    assert load_file(tmp_path / 'a.pth')['state_dict'].keys() == weights().keys()


def test_two_that_may_be_meant(tmp_path):
    torch.save(dict(model=weights(), net=weights()), tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', 'holds weights under model and net; keep one of them')

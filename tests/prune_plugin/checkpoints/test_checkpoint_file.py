"""Checkpoints are read as data and nothing else."""

import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from projects.prune_plugin import UserError, build_pruner, slim
from projects.prune_plugin.checkpoints.checkpoint_file import (
    load_file,
    load_weights,
    prune_state_of,
    save_file,
    use_safe_loader,
)
from projects.prune_plugin.checkpoints.model_loading import load_model
from projects.prune_plugin.checkpoints.packed_masks import pack_masks


class Mischief:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Unknown:
    pass


@pytest.fixture
def weights() -> dict:
    return nn.Linear(3, 2).state_dict()


@pytest.mark.parametrize('place', ['meta', 'state_dict', 'top'])
def test_code_in_a_checkpoint_is_not_run(tmp_path, weights, place):
    trap = tmp_path / 'sprung'
    content = dict(meta={}, state_dict=dict(weights))
    (content if place == 'top' else content[place])['x'] = Mischief(trap)
    torch.save(content, tmp_path / 'bad.pth')
    with pytest.raises(
        UserError, match=r'bad\.pth cannot be loaded: it refers to (posix|os)\.mkdir'
    ):
        load_file(tmp_path / 'bad.pth')
    assert not trap.exists()


def test_getattr_is_no_way_in(tmp_path):
    class ByName:
        def __reduce__(self):
            return getattr, (HistoryBuffer, '__init__')

    torch.save(dict(state_dict={'w': torch.ones(1)}, x=ByName()), tmp_path / 'a.pth')
    with pytest.raises(UserError, match='a.pth'):
        load_file(tmp_path / 'a.pth')


def test_plain_pickles_and_other_classes_are_refused(tmp_path, weights):
    trap = tmp_path / 'sprung'
    (tmp_path / 'plain.pth').write_bytes(pickle.dumps(Mischief(trap)))
    torch.save(dict(state_dict=weights, x=Unknown()), tmp_path / 'class.pth')
    torch.save(nn.Linear(2, 2), tmp_path / 'module.pth')
    for name in ('plain', 'class', 'module'):
        with pytest.raises(UserError, match=rf'{name}\.pth cannot be loaded'):
            load_file(tmp_path / f'{name}.pth')
    assert not trap.exists()


def test_training_checkpoints_with_histories_load(tmp_path, weights):
    history = HistoryBuffer(np.array([0.5, 0.25]), np.array([1, 1]))
    content = dict(
        meta=dict(epoch=2, seed=np.uint32(7)),
        state_dict=weights,
        message_hub=dict(log_scalars=dict(loss=history), runtime_info=dict(lr=np.float64(0.1))),
    )
    torch.save(content, tmp_path / 'train.pth')
    loaded = load_file(tmp_path / 'train.pth')
    assert loaded['message_hub']['log_scalars']['loss'].mean() == 0.375
    assert loaded['meta']['epoch'] == 2


@pytest.mark.parametrize('length', [0, 1, 100, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, length):
    torch.save(dict(state_dict=nn.Linear(40, 40).state_dict()), tmp_path / 'whole.pth')
    data = (tmp_path / 'whole.pth').read_bytes()
    cut = length if isinstance(length, int) else int(len(data) * length)
    (tmp_path / 'cut.pth').write_bytes(data[:cut])
    with pytest.raises(UserError, match=r'cut\.pth (is truncated|cannot be loaded)'):
        load_file(tmp_path / 'cut.pth')


@pytest.mark.parametrize('seed', range(20))
def test_random_bytes_are_refused(tmp_path, seed):
    noise = np.random.default_rng(seed).bytes(50 + 40 * seed)
    (tmp_path / 'noise.pth').write_bytes(noise)
    with pytest.raises(UserError, match=r'noise\.pth'):
        load_file(tmp_path / 'noise.pth')


@pytest.mark.parametrize('seed', range(10))
def test_damaged_files_are_refused_or_load(tmp_path, seed):
    """Changed bytes end in a sentence, or don't matter."""
    weights = nn.Linear(4, 4).state_dict()
    torch.save(dict(state_dict=weights), tmp_path / 'a.pth')
    data = bytearray((tmp_path / 'a.pth').read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, len(data), 5):
        data[place] = int(rng.integers(0, 256))
    (tmp_path / 'a.pth').write_bytes(data)
    try:
        found = load_file(tmp_path / 'a.pth')['state_dict']
    except UserError as error:
        assert 'a.pth' in str(error)
    else:
        assert all(found[name].equal(weight) for name, weight in weights.items())


def test_what_is_no_checkpoint_is_refused(tmp_path):
    for number, content in enumerate(
        ([1, 2], 'text', {}, {'meta': 1}, {'state_dict': {}}, {'state_dict': {'a': 1}})
    ):
        torch.save(content, tmp_path / f'{number}.pth')
        with pytest.raises(UserError, match=rf'{number}\.pth is not a checkpoint'):
            load_file(tmp_path / f'{number}.pth')
    with pytest.raises(UserError, match='gone.pth does not exist'):
        load_file(tmp_path / 'gone.pth')
    with pytest.raises(UserError, match='is a directory; give a .pth file'):
        load_file(tmp_path)


def test_bare_state_dicts_are_checkpoints(tmp_path, weights):
    torch.save(weights, tmp_path / 'bare.pth')
    loaded = load_file(tmp_path / 'bare.pth')
    assert loaded['state_dict'].keys() == weights.keys()
    assert prune_state_of(loaded) is None


def test_load_weights_wants_every_name_and_shape(weights):
    model = nn.Linear(3, 2)
    before = model.weight.clone()
    bad = dict(weight=torch.ones(2, 4), extra=torch.ones(1))
    with pytest.raises(UserError) as refused:
        load_weights(model, dict(state_dict=bad), 'x.pth')
    message = str(refused.value)
    assert 'x.pth belongs to another model' in message and '\n' not in message
    for part in ('1 missing (bias)', '1 unexpected (extra)', 'weight (2, 4) instead of (2, 3)'):
        assert part in message
    assert torch.equal(model.weight, before)
    load_weights(model, dict(state_dict={f'module.{n}': w for n, w in weights.items()}), 'x.pth')
    assert torch.equal(model.weight, weights['weight'])


def test_files_appear_whole_or_not_at_all(tmp_path, weights):
    path = tmp_path / 'a.pth'
    save_file(dict(state_dict=weights), path)
    before = path.read_bytes()
    with pytest.raises(Exception, match='(?i)pickle'):
        save_file(dict(state_dict=weights, bad=lambda: None), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ['a.pth']
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_runner_reads_through_the_safe_loader(tmp_path, weights):
    trap = tmp_path / 'sprung'
    torch.save(dict(state_dict=weights, x=Mischief(trap)), tmp_path / 'bad.pth')
    torch.save(dict(state_dict=weights), tmp_path / 'good.pth')
    schemes = dict(CheckpointLoader._schemes)
    try:
        use_safe_loader()
        model = nn.Linear(3, 2)
        load_checkpoint(model, str(tmp_path / 'good.pth'))
        assert torch.equal(model.weight, weights['weight'])
        with pytest.raises(UserError, match='cannot be loaded'):
            load_checkpoint(model, str(tmp_path / 'bad.pth'))
    finally:
        CheckpointLoader._schemes = schemes
    assert not trap.exists()


def slim_content() -> dict:
    """A slim model's checkpoint with masks."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    state = build_pruner(dict(budget=dict(type='units', ratio=0.4))).plan(model).state
    slim(model, state)
    masks = pack_masks({'0.bias': torch.tensor([1, 0, 1]) > 0})
    meta = dict(prune_state=state.to_dict())
    return dict(meta=meta, state_dict=dict(model.state_dict()), masks=masks)


def group(content: dict) -> dict:
    return content['meta']['prune_state']['groups']['0']


BREAKS = [
    (lambda c: c.update(meta=3), 'meta is a int; it must be a dict'),
    (lambda c: c.update(meta=torch.ones(2, 2)), 'meta is a Tensor; it must be a dict'),
    (lambda c: c.update(masks=[1]), 'masks is a list; it must be a dict'),
    (lambda c: c['masks'].update(a=3), "malformed mask for 'a'"),
    (lambda c: c['masks']['0.bias'].update(shape=[-3]), "malformed mask for '0.bias'"),
    (lambda c: c['masks']['0.bias'].update(shape=[2**63]), "malformed mask for '0.bias'"),
    (lambda c: c['masks']['0.bias'].update(bits=torch.ones(1)), 'float32 for shape'),
    (lambda c: c['masks']['0.bias'].update(shape=[4]), r"mask for '0.bias' is \(4,\), its weight \(3,\)"),
    (lambda c: c['meta'].update(prune_state=3), 'prune_state is not a prune state'),
    (lambda c: c['meta']['prune_state'].update(version=torch.ones(2)), r'prune_state\.version is'),
    (lambda c: c['meta']['prune_state'].update(asked=0), r'prune_state\.asked is 0; it must be a dict'),
    (lambda c: c['meta']['prune_state']['groups'].update({1: {}}), '1 is not a name'),
    (lambda c: c['meta']['prune_state']['groups'].update(a=torch.ones(1)), "'a'. is malformed"),
    (lambda c: group(c).update(kept=[2**63]), 'is malformed'),
    (lambda c: group(c).update(cuts=[]), 'it has no cuts'),
    (lambda c: group(c).update(attrs=[[torch.ones(2, 2), 'a', 1]]), 'tensor.* is not a name'),
    (lambda c: group(c)['cuts'][0].update(sections=[]), "own nothing of '0.weight'"),
    (lambda c: group(c)['cuts'][0].update(width=0), "own nothing of '0.weight'"),
    (lambda c: group(c)['cuts'][0].update(table=[[]] * 6), 'or are empty'),
    (lambda c: group(c)['cuts'][0].update(table=[[0]] * 5 + [[1, 2]]), 'differ in length'),
    (lambda c: group(c)['cuts'][0].update(dim=None), "'0.weight' belongs to one unit as a whole"),
]  # fmt: skip


@pytest.mark.parametrize(('break_it', 'message'), BREAKS)
def test_damaged_entries_are_named_with_their_file(tmp_path, break_it, message):
    content = slim_content()
    break_it(content)
    torch.save(content, tmp_path / 'bad.pth')
    with pytest.raises(UserError, match=rf'bad\.pth: .*{message}') as refused:
        load_file(tmp_path / 'bad.pth')
    assert '\n' not in str(refused.value)


MISFITS = [
    (lambda c: group(c).update(size=2**24), 'dimension 0'),  # and no tensor of that size is made
    (lambda c: group(c)['cuts'][0].update(name='9.weight'), "no tensor '9.weight'"),
    (lambda c: group(c)['cuts'][0].update(sections=[3]), 'dimension 0'),
    (lambda c: c['state_dict'].update({'0.bias': [0.0] * 3}), '0.bias a list instead of'),
    (lambda c: c['state_dict'].update({'0.bias': torch.zeros(3).long()}), r'\(3,\) whole instead'),
    (lambda c: c['state_dict'].update({'0.bias': torch.zeros(3) * 1j}), r'\(3,\) complex instead'),
    (lambda c: c['state_dict'].update({'0.bias': torch.zeros(3).to_sparse()}), r'\(3,\) sparse'),
    (lambda c: c['state_dict'].update({3: torch.zeros(3)}), r'1 unexpected \(3\)'),
    (lambda c: c['state_dict'].update({'a\nb': torch.zeros(3)}), r'1 unexpected \(a b\)'),
    (lambda c: c['state_dict'].update({'module.0.bias': torch.ones(3)}), r'unexpected \(module'),
]  # fmt: skip


@pytest.mark.parametrize(('break_it', 'message'), MISFITS)
def test_what_does_not_fit_the_model_is_named_with_the_file(tmp_path, break_it, message):
    content = slim_content()
    break_it(content)
    torch.save(content, tmp_path / 'bad.pth')
    cfg = Config(dict(model=dict(type='CheckpointToy')))
    with pytest.raises(UserError, match=rf'bad\.pth.*{message}'):
        load_model(cfg, str(tmp_path / 'bad.pth'))


@MODELS.register_module()
class CheckpointToy(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2))


def test_the_undamaged_file_loads(tmp_path):
    content = slim_content()
    torch.save(content, tmp_path / 'good.pth')
    loaded = load_model(Config(dict(model=dict(type='CheckpointToy'))), str(tmp_path / 'good.pth'))
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, content['state_dict'][name])

"""Saving and loading from Python, without a config."""

import pytest
import torch
from torch import nn

from projects.prune_plugin import (
    UserError,
    build_pruner,
    load_checkpoint,
    load_weights,
    prune_state_of,
    save_checkpoint,
    slim,
)

CFG = {
    'units': dict(budget=dict(ratio=0.3)),
    'weights': dict(type='WeightPruner', budget=dict(ratio=0.5)),
}


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def pruned(what: str):
    pruner, model = build_pruner(CFG[what]), mlp()
    return pruner.apply(model, pruner.plan(model))


def checkpoint_of(what: str) -> dict:
    made = pruned(what)
    return {'state_dict': made.model.state_dict(), **made.describe()}


@pytest.mark.parametrize('what', CFG)
def test_what_is_saved_is_sealed_and_loaded(what, tmp_path):
    data = checkpoint_of(what)
    keys = data.keys() | data.get('meta', {}).keys()
    save_checkpoint(data, tmp_path / 'a.pth')
    assert data.keys() | data.get('meta', {}).keys() == keys  # as it was
    checkpoint = load_checkpoint(tmp_path / 'a.pth')
    assert checkpoint['meta']['prune_seal']
    state, model = prune_state_of(checkpoint), mlp()
    if state is not None:
        model = slim(model, state)
    load_weights(model, checkpoint, 'a.pth')
    assert all(w.equal(data['state_dict'][name]) for name, w in model.state_dict().items())
    torch.save({**checkpoint, 'state_dict': {'a': torch.ones(2)}}, tmp_path / 'b.pth')
    with pytest.raises(UserError, match='was changed after it was written'):
        load_checkpoint(tmp_path / 'b.pth')


def test_a_dense_one_has_no_seal(tmp_path):
    save_checkpoint({'state_dict': mlp().state_dict(), 'meta': {'epoch': 3}}, tmp_path / 'a.pth')
    assert load_checkpoint(tmp_path / 'a.pth')['meta'] == {'epoch': 3}


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('no/dir/x.pth', r'x\.pth cannot be written: .*no/dir is no directory; make it first'),
        ('.', 'is a directory; name a file in it'),
        (None, 'the path of a checkpoint is None; it must be the name of a file'),
    ],
)
def test_paths_that_no_file_can_have(path, message, tmp_path):
    if path is None:
        with pytest.raises(UserError, match=message):
            load_checkpoint(path)
    with pytest.raises(UserError, match=message):
        save_checkpoint({}, path if path is None else tmp_path / path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(meta=dict(prune_state=3)), 'a.pth: prune_state is not a prune state'),
        (dict(meta=[1]), "a.pth: the checkpoint's meta is a list; it must be a dict"),
        (
            dict(masks={'0.weight': torch.ones(16, 8)}),
            "a.pth: .* malformed mask for '0.weight': it is a Tensor, not pac",
        ),
    ],
)
def test_nothing_is_written_that_could_not_be_read(change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        save_checkpoint({'state_dict': mlp().state_dict(), **change}, tmp_path / 'a.pth')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('given', [None, 'a.pth', mlp()])
def test_what_is_no_checkpoint(given):
    for take in (prune_state_of, lambda c: load_weights(mlp(), c, 'a.pth')):
        with pytest.raises(
            UserError, match='the checkpoint is .*; it must be a dict with a state_d'
        ):
            take(given)


@pytest.mark.parametrize('given', [{}, mlp().state_dict(), {'state_dict': None}])
def test_a_checkpoint_without_weights(given):
    with pytest.raises(
        UserError, match=r'checkpoint a.pth has no state_dict; give what load_check'
    ):
        load_weights(mlp(), given, 'a.pth')


def test_slim_weights_for_a_dense_model():
    data = checkpoint_of('units')
    slim_first = r'call slim\(model, prune_state_of\(checkpoint\)\) first$'
    with pytest.raises(UserError, match='belongs to another model than .*' + slim_first):
        load_weights(mlp(), data, 'a.pth')
    dense = {'state_dict': mlp().state_dict()}
    slimmed = slim(mlp(), prune_state_of(data))
    for given in (
        dense,
        {**dense, 'meta': data['meta']},
    ):  # slim already: that advice would be wrong
        with pytest.raises(UserError, match=r'belongs to another model .*\)$') as refused:
            load_weights(slimmed, given, 'a.pth')
        assert 'call slim' not in str(refused.value)

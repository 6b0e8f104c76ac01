"""The prune state: plain data, strictly checked."""

import json
from copy import deepcopy

import pytest
import torch
from cases import BY_NAME, random_state

from projects.prune_plugin import PruneState, UserError, compose
from projects.prune_plugin.checkpoints.slim_model import state_from_file
from projects.prune_plugin.structure.prune_state import to_dense_indices
from projects.prune_plugin.structure.units import Cut, UnitGroup


@pytest.fixture
def data() -> dict:
    state = BY_NAME['torch_encoder'].state('half')
    state.asked, state.achieved = {'budget': 'params', 'ratio': 0.3}, {'params': 0.31}
    return json.loads(json.dumps(state.to_dict()))


def test_to_dict_is_plain_and_complete(data):
    state = PruneState.from_dict(data)
    assert state.to_dict() == data
    assert state.asked == {'budget': 'params', 'ratio': 0.3} and state.achieved == {'params': 0.31}
    assert state.groups == {g.name: g for g in BY_NAME['torch_encoder'].groups()}
    assert data['version'] == 1
    entry = data['groups']['layers.0.self_attn']
    assert entry['size'] == 4 and entry['kind'] == 'attention' and len(entry['kept']) == 2


def test_digest_follows_the_kept_units():
    one, same = (BY_NAME['vit'].state('half', seed=1) for _ in range(2))
    assert one.digest() == same.digest()
    assert one.digest() != BY_NAME['vit'].state('half', seed=2).digest()
    moved = PruneState(dict(reversed(one.groups.items())), dict(reversed(one.kept.items())))
    assert moved.digest() == one.digest()


BREAKS = [
    (lambda d: d.update(version=2), r'prune_state\.version is 2; valid is 1'),
    (lambda d: d.pop('version'), r'prune_state\.version is None'),
    (lambda d: d.update(groups=[1]), "needs 'version' and 'groups'"),
    (lambda d: first(d).pop('kept'), "is malformed: 'kept'"),
    (lambda d: first(d).pop('cuts'), "is malformed: 'cuts'"),
    (lambda d: first(d).update(kept=[0, 0]), 'kept indices must ascend and stay below 4'),
    (lambda d: first(d).update(kept=[2, 1]), 'must ascend'),
    (lambda d: first(d).update(kept=[0, 4]), 'stay below 4'),
    (lambda d: first(d).update(kept=[-1, 2]), '-1 is not a whole number >= 0'),
    (lambda d: first(d).update(kept=[0.5]), '0.5 is not a whole number'),
    (lambda d: first(d).update(kept=['1']), "'1' is not a whole number"),
    (lambda d: first(d).update(kept=[True]), 'True is not a whole number'),
    (lambda d: first(d).update(size='4'), "'4' is not a whole number"),
    (lambda d: first(d).update(converts=[['a', 'eval']]), "no converter 'eval'"),
    (lambda d: first(d)['cuts'][0].update(dim=-1), '-1 is not a whole number'),
    (lambda d: first(d)['cuts'][0].update(table=[[0]]), 'has 1 rows, not 4'),
    (lambda d: first(d).update(cuts=3), 'is malformed'),
]


def first(data: dict) -> dict:
    return data['groups']['layers.0.self_attn']


@pytest.mark.parametrize(('break_it', 'message'), BREAKS)
def test_malformed_states_are_named(data, break_it, message):
    break_it(data)
    with pytest.raises(UserError, match=message):
        PruneState.from_dict(data)


@pytest.mark.parametrize('junk', [None, 3, [], 'state', {}])
def test_junk_is_no_state(junk):
    with pytest.raises(UserError, match='prune_state is not a prune state'):
        PruneState.from_dict(junk)


def test_state_files(tmp_path, data):
    path = tmp_path / 'state.json'
    path.write_text(json.dumps(data))
    assert state_from_file(str(path)).to_dict() == data
    path.write_text('{"version": ')
    with pytest.raises(UserError, match=r'state\.json is not JSON'):
        state_from_file(str(path))
    with pytest.raises(UserError, match=r'gone\.json cannot be read: No such file'):
        state_from_file(str(tmp_path / 'gone.json'))
    torch.save({'state_dict': {'w': torch.ones(1)}}, tmp_path / 'dense.pth')
    with pytest.raises(UserError, match=r'dense\.pth carries no prune_state'):
        state_from_file(str(tmp_path / 'dense.pth'))


def test_removed_indices_by_hand():
    group = UnitGroup(
        'g', 'attention', 3, (Cut('w', 0, 2, (0, 6)), Cut('v', 1, table=((4, 0), (1, 5), (2, 3))))
    )
    state = PruneState({'g': group}, {'g': torch.tensor([1])})
    found = {key: value.tolist() for key, value in state.removed_indices().items()}
    assert found == {('w', 0): [0, 1, 4, 5, 6, 7, 10, 11], ('v', 1): [0, 2, 3, 4]}
    assert state.removed('g').tolist() == [0, 2]
    assert [g.name for g in state.reduced] == ['g']


def test_dense_indices_by_hand():
    removed = {('w', 0): torch.tensor([0, 3])}
    cut = to_dense_indices(Cut('w', 0, 1), 3, removed)  # the slim rows 0, 1, 2
    assert cut.table == ((1,), (2,), (4,))
    assert to_dense_indices(Cut('w', 1, 1), 3, removed) == Cut('w', 1, 1)


def test_compose_with_nothing_before():
    state = BY_NAME['vit'].state('half')
    assert compose(None, state) is state


def test_compose_leaves_its_arguments_alone():
    first_state, dense = BY_NAME['vit'].state('half'), BY_NAME['vit'].state('half').to_dict()
    small = [
        UnitGroup(g.name, g.kind, len(first_state.kept[g.name]), g.cuts)
        for g in first_state.groups.values()
    ]
    second = random_state(small, 'half')
    before = deepcopy(second.to_dict())
    compose(first_state, second)
    assert first_state.to_dict() == dense and second.to_dict() == before

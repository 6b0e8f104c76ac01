"""Whatever a checkpoint file holds: the model in it is loaded as it is, or a UserError names the file."""

import pickle
import zipfile
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import mixed_model
import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from torch import Tensor

from projects.prune_plugin import UserError, build_pruner, slim
from projects.prune_plugin.checkpoints.model_loading import load_model
from projects.prune_plugin.checkpoints.packed_masks import pack_masks, unpack_masks

pytestmark = pytest.mark.properties
#: Most examples end at once.
MORE = settings(max_examples=3 * settings.default.max_examples)
CONFIG = Config(dict(model=dict(type='FuzzedModel')))


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


@cache
def slim_checkpoint() -> dict[str, Any]:
    """What a pruned model is saved as, with masks and all."""
    torch.manual_seed(0)
    model = mixed_model.FuzzedModel()
    state = build_pruner(dict(budget=dict(type='units', ratio=0.4))).plan(model).state
    slim(model, state)
    meta = dict(prune_state=state.to_dict(), epoch=3, iter=12, experiment_name='fuzz')
    masks = pack_masks(
        {'stem.weight': torch.rand(8, 3, 1, 1) > 0.5, 'stem.bias': torch.ones(8) > 0}
    )
    return dict(meta=meta, state_dict=model.state_dict(), masks=masks, message_hub=dict(lr=0.1))


@cache
def slim_bytes(folder: Path) -> bytes:
    torch.save(slim_checkpoint(), folder / 'slim.pth')
    return (folder / 'slim.pth').read_bytes()


def load(path: Path, damaged: bool = False) -> None:
    """Load as the tools do; what is loaded must be the very tensors in the file, and must run.

    Args:
        path: The file.
        damaged: It is the slim checkpoint with damage: if it loads, the weights are those.
    """
    try:
        loaded = load_model(CONFIG, str(path))
    except UserError as error:
        said = str(error)
        assert path.name in said and '\n' not in said, said
        return
    event('loads')
    state = loaded.prior_state
    weights = slim_checkpoint()['state_dict'] if damaged else loaded.checkpoint['state_dict']
    for name, tensor in loaded.model.state_dict().items():
        given = weights.get(name, weights.get(f'module.{name}'))
        assert torch.equal(tensor, given.to(tensor)) or tensor.isnan().any(), name
    assert (state is None) == (loaded.checkpoint['meta'].get('prune_state') is None)
    assert state is None or slim_shapes(state) == {
        n: t.shape for n, t in loaded.model.state_dict().items()
    }
    for name, keep in unpack_masks(loaded.checkpoint.get('masks') or {}).items():
        assert name not in weights or keep.shape == weights[name].shape
    try:
        with torch.no_grad():
            assert loaded.model(torch.ones(2, 3, 4, 4)).shape == (2, 5)
    except (
        RuntimeError
    ) as error:  # numbers beside the tensors were changed: loud, and nothing computed
        assert 'shape' in str(error) or 'size' in str(error) or 'dim' in str(error), error


def slim_shapes(state) -> dict[str, torch.Size]:
    return {n: t.shape for n, t in slim(mixed_model.FuzzedModel(), state).state_dict().items()}


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('fuzz')


@MORE
@given(
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    near_end=st.booleans(),
)
def test_flipped_bytes(folder, flips, near_end):
    data = bytearray(slim_bytes(folder))
    for place, value in flips:
        size = len(data) - 1
        data[int(size * (1 - place / 20 if near_end else place))] = value
    path = folder / 'flipped.pth'
    path.write_bytes(data)
    load(path, damaged=True)


@MORE
@given(
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_flipped_bytes_in_the_pickle(folder, flips):
    """A whole archive, so that what is damaged is what gets read."""
    slim_bytes(folder)
    path = folder / 'pickle.pth'
    with zipfile.ZipFile(folder / 'slim.pth') as old, zipfile.ZipFile(path, 'w') as new:
        for name in old.namelist():
            data = bytearray(old.read(name))
            for place, value in flips if name.endswith('data.pkl') else ():
                data[place % len(data)] = value
            new.writestr(name, bytes(data))
    load(path)


@MORE
@given(share=st.floats(0, 1))
def test_truncated(folder, share):
    path = folder / 'truncated.pth'
    path.write_bytes(slim_bytes(folder)[: int(share * len(slim_bytes(folder)))])
    load(path, damaged=True)


NUMBERS = st.sampled_from(
    (0, 1, 2, 3, 5, -1, 2**31, 2**63, 2**64, 10**30, 0.5, float('nan'), float('inf'))
)
ODD = st.one_of(
    st.none(), st.booleans(), NUMBERS, NUMBERS, st.integers(-2, 12),
    st.sampled_from(('', 'x', '1', 'weight', 'stem.weight', 'branch.0', 'SlimLayerNorm', 'out')),
    st.lists(st.integers(-1, 4), max_size=3), st.just({}), st.just([]), st.just(['a']), st.just([[]]),
    st.just({'a': 1}), st.just({1: 2}), st.just(b'x'), st.just((1, 'a')),
    st.sampled_from(((), (0,), (2, 2), (8,), (8, 3, 1, 1))).map(torch.ones),
    st.just(torch.tensor(float('nan'))), st.just(torch.zeros(3, dtype=torch.long)),
    st.just(torch.zeros(2, 2).to_sparse()), st.just(torch.ones(2, dtype=torch.complex64)),
)  # fmt: skip


def places(value: Any, path: tuple = ()) -> list[tuple]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else ()
    for key, item in enumerate(value) if isinstance(value, list | tuple) else items:
        found += places(item, (*path, key))
    return found


def listed(value: Any) -> Any:
    """A copy in which everything can be changed."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: listed(item) for key, item in value.items()}
    return [listed(item) for item in value] if isinstance(value, list | tuple) else deepcopy(value)


def inner(value: Any, path: tuple) -> Any:
    for key in path:
        value = value[key]
    return value


def remove(holder: Any, key: Any) -> None:
    del holder[key]


def double(holder: Any, key: Any) -> None:
    if isinstance(holder, list):
        holder.append(holder[key])
    else:
        holder[f'{key}_'] = holder[key]


@st.composite
def changed(draw: st.DrawFn) -> tuple[Any, list]:
    """A checkpoint with a few changes in its structure, most of them in the prune state."""
    content, said = listed(slim_checkpoint()), []
    for _ in range(draw(st.integers(1, 3))):
        if not isinstance(content, dict):
            break
        part = draw(
            st.sampled_from(
                ((), ('state_dict',), ('meta',), ('masks',), *[('meta', 'prune_state')] * 5)
            )
        )
        try:
            candidates = places(inner(content, part), part)
        except (KeyError, TypeError, IndexError):
            candidates = []
        where = draw(st.sampled_from(candidates or [('meta',)]))
        holder, key = inner(content, where[:-1]), where[-1]
        act: Callable | None = draw(st.sampled_from((None, None, None, None, remove, double)))
        if act is None:
            value = listed(draw(ODD))
            holder[key] = value
            said.append((where, value))
        elif isinstance(holder, list) or key in holder:
            act(holder, key)
            said.append((where, act.__name__))
    return content, said


@MORE
@given(changes=changed())
def test_changed_structures(folder, changes):
    content, _ = changes
    path = folder / 'changed.pth'
    torch.save(content, path)
    load(path)


@MORE
@given(content=ODD, trapped=st.booleans(), places=st.sampled_from(('top', 'meta', 'state_dict')))
def test_other_contents_and_traps(folder, content, trapped, places):
    path, trap = folder / 'other.pth', folder / 'sprung'
    if trapped:
        content = listed(slim_checkpoint())
        (content if places == 'top' else content[places])['x'] = Trap(trap)
    torch.save(content, path)
    load(path)
    path.write_bytes(pickle.dumps(Trap(trap) if trapped else 3))
    load(path)
    assert not trap.exists()

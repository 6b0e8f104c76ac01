"""Info files: what may be in them, and what is said about those that can't be used."""

import io
import os
import pickle

import numpy as np
import pytest

from projects.prune_plugin.common.errors import DataNotFoundError, UserError
from projects.vad.datasets.infos import CAMERAS, REQUIRED, load_infos, save_infos


def record(**fields) -> dict:
    """The least that a record needs."""
    camera = dict(
        data_path='a.jpg',
        cam_intrinsic=np.eye(3),
        sensor2lidar_rotation=np.eye(3),
        sensor2lidar_translation=np.zeros(3),
    )
    info = {name: np.float32(1) for name in REQUIRED}
    info.update(
        token='t',
        gt_names=np.array(['car', 'human.pedestrian.stroller']),
        gt_boxes=np.arange(14.0).reshape(2, 7),
        valid_flag=np.array([True, False]),
        gt_velocity=np.array([[1.0, np.nan]]),
        can_bus=np.zeros(18, order='F'),
        timestamp=1_532_402_927_647_951,
        cams={name: dict(camera) for name in CAMERAS},
    )
    info.update(fields)
    return info


def content(**fields) -> dict:
    return dict(infos=[record(), record(**fields)], metadata=dict(version='v1.0-mini'))


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        if a.dtype != b.dtype:
            return False
        return bool(((a == b) | ((a != a) & (b != b))).all())
    return type(a) is type(b) and a == b


def test_round_trip(tmp_path):
    data = content(sweeps=[dict(a=1)], extra=(1, {2}, b'3', None, slice(4)))
    save_infos(data, tmp_path / 'infos.pkl')
    assert same(load_infos(tmp_path / 'infos.pkl'), data)
    assert os.listdir(tmp_path) == ['infos.pkl']


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize('numpy', ['numpy.core', 'numpy._core'])
def test_files_of_every_age(tmp_path, protocol, numpy):
    """NumPy 1 calls its reconstruction functions by another name, as Python 2 its built-ins."""

    class Renaming(pickle._Pickler):
        dispatch = dict(pickle._Pickler.dispatch)

        def save_global(self, obj, name=None):
            module, name = obj.__module__, name or obj.__qualname__
            if not module.startswith('numpy._core'):
                return super().save_global(obj, name)
            module = module.replace('numpy._core', numpy)
            if self.proto >= 4:
                self.save(module)
                self.save(name)
                self.write(pickle.STACK_GLOBAL)
            else:
                self.write(pickle.GLOBAL + f'{module}\n{name}\n'.encode())
            self.memoize(obj)

        dispatch[type(np.zeros(1).__reduce__()[0])] = save_global

    stream = io.BytesIO()
    Renaming(stream, protocol).dump(content(extra=b'bytes'))
    path = tmp_path / 'infos.pkl'
    path.write_bytes(stream.getvalue())
    assert numpy.encode() in stream.getvalue()
    assert same(load_infos(path), content(extra=b'bytes'))


class Evil:
    """Runs something when it is read."""

    def __init__(self, function, *args) -> None:
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'function, named', [(os.system, 'system'), (eval, 'eval'), (getattr, 'getattr'), (open, 'open')]
)
@pytest.mark.parametrize('where', ['beside', 'in an array'])
def test_code_is_refused(tmp_path, function, named, where):
    trace = tmp_path / 'trace'
    evil = Evil(function, f'touch {trace}' if function is os.system else str(trace), 'w')
    extra = evil if where == 'beside' else np.array([evil], dtype=object)
    path = tmp_path / 'infos.pkl'
    path.write_bytes(pickle.dumps(content(extra=extra)))
    with pytest.raises(UserError, match=rf'infos.pkl is refused: it names \w+\.{named}, and only'):
        load_infos(path)
    assert not trace.exists()


def test_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(DataNotFoundError, match=r'none.pkl does not exist; .*create_data.py toy'):
        load_infos(tmp_path / 'none.pkl')


def test_damaged_files(tmp_path):
    whole = pickle.dumps(content())
    noise = np.random.default_rng(0)
    broken = [b'', b'text', *(whole[:n] for n in (1, 20, len(whole) // 2, len(whole) - 1))]
    broken += [noise.bytes(1000) for _ in range(20)]
    path = tmp_path / 'infos.pkl'
    for data in broken:
        path.write_bytes(data)
        with pytest.raises(UserError, match='infos.pkl (is truncated|is refused|holds no)'):
            load_infos(path)


def without(name: str) -> dict:
    data = content()
    del data['infos'][1][name]
    return data


def camera(change) -> dict:
    data = content()
    change(data['infos'][0]['cams'])
    return data


@pytest.mark.parametrize(
    'data, message',
    [
        ([1, 2], 'holds no records'),
        (dict(infos=[]), 'holds no records'),
        (dict(infos={}, metadata={}), 'holds no records'),
        (dict(infos=[], metadata={}), 'lacks metadata.version'),
        (dict(infos=[1], metadata=dict(version='x')), 'record 0 is a int'),
        (without('gt_boxes'), 'record 1 lacks gt_boxes'),
        (camera(lambda c: c.pop('CAM_BACK')), 'record 0: cams lacks CAM_BACK'),
        (camera(lambda c: c['CAM_FRONT'].pop('data_path')), 'cams.CAM_FRONT lacks data_path'),
    ],
)
def test_what_is_missing_is_named(tmp_path, data, message):
    path = tmp_path / 'infos.pkl'
    with pytest.raises(UserError, match=message):
        save_infos(data, path)
    assert os.listdir(tmp_path) == []
    path.write_bytes(pickle.dumps(data))
    with pytest.raises(UserError, match=message):
        load_infos(path)

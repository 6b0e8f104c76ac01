"""Info files: one record per key frame, pickled; read without running what a pickle may name."""

import builtins
import collections
import os
import pickle
from typing import Any

import numpy as np

from projects.prune_plugin.common.errors import DataNotFoundError, UserError
from projects.prune_plugin.common.fileio import atomic_write

#: How the files that ``tools/create_data.py`` writes are called.
INFO_FILE = 'vad_nuscenes_infos_temporal_{split}.pkl'
#: The cameras, in the order in which the network sees them.
CAMERAS = (
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_FRONT_LEFT',
    'CAM_BACK',
    'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT',
)
#: Fields of a record that the data set can't do without.
REQUIRED = frozenset(
    """token scene_token frame_idx timestamp lidar2ego_translation lidar2ego_rotation
    ego2global_translation ego2global_rotation cams can_bus fut_valid_flag map_location
    gt_boxes gt_names gt_velocity num_lidar_pts valid_flag gt_agent_fut_trajs gt_agent_fut_masks
    gt_agent_fut_goal gt_agent_lcf_feat gt_agent_fut_yaw gt_ego_his_trajs gt_ego_fut_trajs
    gt_ego_fut_masks gt_ego_fut_cmd gt_ego_lcf_feat""".split()
)
CAMERA_REQUIRED = frozenset(
    ('data_path', 'cam_intrinsic', 'sensor2lidar_rotation', 'sensor2lidar_translation')
)
HOW_TO_MAKE = (
    'python tools/create_data.py nuscenes --root-path ROOT --canbus CANBUS --version '
    'v1.0-trainval, or python tools/create_data.py toy --out data/toy_nuscenes'
)

_BUILTINS = (
    'bool bytearray bytes complex dict float frozenset int list object range set slice str tuple'
).split()
_NUMPY_TYPES = (
    np.bool_, np.bytes_, np.complex64, np.complex128, np.datetime64, np.timedelta64, np.float16,
    np.float32, np.float64, np.int8, np.int16, np.int32, np.int64, np.str_, np.uint8, np.uint16,
    np.uint32, np.uint64, np.void, np.ndarray, np.dtype,
)  # fmt: skip


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in the oldest pickle protocols."""
    return text.encode(encoding)


def _allowed() -> dict[tuple[str, str], Any]:
    """Everything that a file may name, under the names of every version that wrote such files."""
    table = {
        ('collections', 'OrderedDict'): collections.OrderedDict,
        ('_codecs', 'encode'): _latin1,
    }
    for name in _BUILTINS:
        table['builtins', name] = table['__builtin__', name] = getattr(builtins, name)
    for kind in _NUMPY_TYPES:
        table['numpy', kind.__name__] = kind
    table['numpy', 'bool_'] = table['numpy', 'bool8'] = np.bool_
    array, scalar = np.zeros(1), np.float64(0)
    for core in ('numpy.core', 'numpy._core'):  # NumPy 1 and 2
        table[f'{core}.multiarray', '_reconstruct'] = array.__reduce__()[0]
        table[f'{core}.multiarray', 'scalar'] = scalar.__reduce__()[0]
        table[f'{core}.numeric', '_frombuffer'] = array.__reduce_ex__(5)[0]
    return table


class _Unpickler(pickle.Unpickler):
    """Knows NumPy's arrays and Python's own containers, and refuses the rest."""

    allowed = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        """See :class:`pickle.Unpickler`."""
        try:
            return self.allowed[module, name]
        except KeyError:
            raise UserError(
                f'it names {module}.{name}, and only arrays, numbers, text and containers are valid'
            ) from None


def load_infos(path: str | os.PathLike) -> dict[str, Any]:
    """The records of an info file, ours or the original project's: ``infos`` and ``metadata``.

    The file can't run code: what it names beyond NumPy arrays and Python's containers is refused.

    Args:
        path: A ``vad_nuscenes_infos_temporal_*.pkl``.

    Returns:
        ``infos``, a list of dicts in the file's order, and ``metadata``, a dict with ``version``.

    Raises:
        DataNotFoundError: there is no such file.
        UserError: it is damaged, names something foreign, or its records lack fields.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise DataNotFoundError(f'info file {path} does not exist; make it with {HOW_TO_MAKE}')
    try:
        with open(path, 'rb') as file:
            data = _Unpickler(file).load()
    except UserError as error:
        raise UserError(f'info file {path} is refused: {error}') from None
    except Exception as error:  # damaged bytes make the unpickler raise nearly anything
        raise UserError(
            f'info file {path} is truncated or damaged ({type(error).__name__}: {error}); '
            'make it again with tools/create_data.py'
        ) from error
    _check(data, path)
    return data


def save_infos(data: dict[str, Any], path: str | os.PathLike) -> None:
    """Write an info file: whole, or not at all.

    Args:
        data: ``infos``, a list of records, and ``metadata``.
        path: The file.

    Raises:
        UserError: the records lack fields; nothing is written.
    """
    path = os.fspath(path)
    _check(data, path)
    with atomic_write(path, 'wb') as file:
        pickle.dump(data, file, protocol=4)


def _check(data: Any, path: str) -> None:
    """Refuse what the data set could not use, naming what is missing."""
    keys = {'infos': list, 'metadata': dict}
    if not isinstance(data, dict) or not all(isinstance(data.get(k), v) for k, v in keys.items()):
        raise UserError(
            f'info file {path} holds no records; a dict with infos (a list) and metadata would'
        )
    if 'version' not in data['metadata']:
        raise UserError(f'info file {path} lacks metadata.version, such as v1.0-trainval')
    for number, info in enumerate(data['infos']):
        where = f'info file {path}: record {number}'
        if not isinstance(info, dict):
            raise UserError(f'{where} is a {type(info).__name__}; a dict would be valid')
        _complain(where, REQUIRED - info.keys())
        _complain(f'{where}: cams', set(CAMERAS) - info['cams'].keys())
        for name in CAMERAS:
            _complain(f'{where}: cams.{name}', CAMERA_REQUIRED - info['cams'][name].keys())


def _complain(where: str, missing: set[str] | frozenset[str]) -> None:
    if missing:
        raise UserError(
            f'{where} lacks {", ".join(sorted(missing))}; make the file with tools/create_data.py'
        )

"""``tools/create_data.py``: what it writes, what it leaves alone, and what it refuses."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from projects.prune_plugin.common.errors import UserError
from projects.vad.datasets.converter import existing_infos, info_paths, write_infos
from projects.vad.datasets.infos import CAMERAS, load_infos
from projects.vad.datasets.toy import drive

ROOT = Path(__file__).resolve().parents[2]
TOOL = 'create_data'


@pytest.fixture
def load_tool():
    """A tool as a module, by its name."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f'tool_{name}', ROOT / f'tools/{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope='session')
def write_tiny_nuscenes():
    """The writer of a nuScenes folder of two scenes."""
    path = ROOT / 'tests/vad/datasets/tiny_nuscenes.py'
    spec = importlib.util.spec_from_file_location('tiny_nuscenes', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_tiny_nuscenes


@pytest.fixture
def root(tmp_path, write_tiny_nuscenes):
    return write_tiny_nuscenes(tmp_path / 'nuscenes', frames=3)


@pytest.fixture
def nuscenes(call_tool, root):
    def call(*more, version='v1.0-mini', canbus=root):
        return call_tool(
            TOOL, 'nuscenes', '--root-path', root, '--canbus', canbus, '--version', version, *more
        )

    return call


@pytest.fixture
def drawn(monkeypatch, write_tiny_nuscenes):
    """A toy drive that takes no time; the calls that asked for it."""
    calls = []

    def write_toy(out, *settings):
        calls.append(settings)
        if settings[0] == 13:
            raise UserError('something else is there')
        if not Path(out).exists():
            write_tiny_nuscenes(Path(out), frames=settings[2])

    module = ModuleType('toy')
    module.write_toy = write_toy
    monkeypatch.setitem(sys.modules, 'projects.vad.datasets.toy', module)
    return calls


def contents(folder) -> dict:
    return {path: path.stat().st_mtime_ns for path in folder.rglob('*')}


def test_nuscenes_is_written_once(nuscenes, root):
    ended = nuscenes()
    assert ended.code == 0, ended.out
    assert 'vad_nuscenes_infos_temporal_train.pkl: 3 key frames' in ended.out
    before = contents(root)
    ended = nuscenes()
    assert ended.code == 0 and '--anew writes them again' in ended.out
    assert contents(root) == before
    assert nuscenes('--anew').code == 0
    assert contents(root) != before


def test_nuscenes_to_another_folder(nuscenes, root, tmp_path):
    before = contents(root)
    assert nuscenes('--out-dir', tmp_path / 'a/b').code == 0
    assert contents(root) == before
    assert existing_infos(tmp_path / 'a/b') == dict(version='v1.0-mini')


def test_damaged_info_file_is_made_again(nuscenes, root):
    nuscenes()
    path = info_paths(root)['val']
    path.write_bytes(path.read_bytes()[:100])
    ended = nuscenes()
    assert ended.code == 0 and 'val.pkl is truncated' in ended.out
    assert len(load_infos(path)['infos']) == 3


def test_another_version_is_not_replaced(nuscenes, root):
    nuscenes()
    before = contents(root)
    ended = nuscenes(version='v1.0-trainval')
    assert ended.code == 2
    assert 'holds info files of v1.0-mini, not of v1.0-trainval' in ended.errors[0]
    assert contents(root) == before


def test_toy_and_its_info_files(call_tool, drawn, tmp_path):
    out = tmp_path / 'data/toy'
    arguments = ('toy', '--out', out, '--seed', 3, '--frames', 4, '--image-size', 64, 36)
    ended = call_tool(TOOL, *arguments)
    assert ended.code == 0, ended.out
    assert drawn == [(3, 6, 4, (64, 36))]
    info = load_infos(info_paths(out)['train'])['infos'][0]
    assert all((out / info['cams'][name]['data_path']).is_file() for name in CAMERAS)
    before = contents(out)
    ended = call_tool(TOOL, *arguments)
    assert ended.code == 0 and 'holds its info files' in ended.out and contents(out) == before


def test_a_toy_without_info_files_gets_them(call_tool, drawn, tmp_path):
    out = tmp_path / 'toy'
    for _ in range(2):
        assert call_tool(TOOL, 'toy', '--out', out, '--frames', 3).code == 0
        assert existing_infos(out) == dict(version='v1.0-mini')
        info_paths(out)['val'].unlink()


def test_a_toy_that_is_refused_leaves_nothing(call_tool, drawn, tmp_path):
    ended = call_tool(TOOL, 'toy', '--out', tmp_path / 'data/toy', '--seed', 13)
    assert ended.code == 2 and ended.errors == ['error: something else is there']
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', ['SEEDS', 'SCENES', 'FRAMES', 'PIXELS'])
def test_ranges_are_those_of_the_drive(name, load_tool):
    """What the command line lets through is what the writer takes, and no less."""
    low, high = getattr(load_tool(TOOL), name)
    key = dict(SEEDS='seed', SCENES='num_scenes', FRAMES='num_frames', PIXELS='image_size')[name]
    good = dict(seed=0, num_scenes=1, num_frames=2, image_size=(32, 32), workers=1)
    for value, fine in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
        given = good | {key: (value, value) if key == 'image_size' else value}
        if fine:
            drive._check(**given)
            continue
        with pytest.raises(UserError, match=key):
            drive._check(**given)


@pytest.mark.parametrize(('frames', 'planned'), [(6, False), (7, True)])
def test_scenes_too_short_for_planning_are_told(frames, planned, call_tool, drawn, tmp_path):
    ended = call_tool(TOOL, 'toy', '--out', tmp_path / 'out', '--frames', frames)
    lines = [line for line in ended.err.splitlines() if line.startswith('warning: ')]
    assert ended.code == 0 and len(lines) == (not planned)
    assert planned or '--frames 6: planning is measured where six key frames follow' in lines[0]
    size = (64, 36)
    root = drive.write_toy(tmp_path / 'drive', 0, 1, frames, size, progress=False, workers=1)
    write_infos(root, root, version='v1.0-mini', progress=False)
    infos = load_infos(info_paths(root)['train'])['infos']
    assert any(info['gt_ego_fut_masks'].all() for info in infos) == planned


def test_a_canbus_folder_that_is_gone_is_told_where_nothing_is_left_to_do(nuscenes, root):
    assert nuscenes().code == 0
    ended = nuscenes(canbus=root / 'none')
    assert ended.code == 2 and ended.errors[0].startswith(
        f'error: --canbus {root}/none does not exist'
    )


def test_the_real_toy(call_tool, tmp_path):
    """A drive of few small pictures, through the real writer."""
    out = tmp_path / 'toy'
    ended = call_tool(
        TOOL, 'toy', '--out', out, '--scenes', 2, '--frames', 3, '--image-size', 160, 90
    )
    assert ended.code == 0, ended.out
    infos = [load_infos(path)['infos'] for path in info_paths(out).values()]
    assert [len(found) for found in infos] == [3, 3]
    for info in infos[0] + infos[1]:
        assert info['can_bus'].any() and len(info['gt_boxes']) and len(info['map_vectors'])


NUSCENES = 'nuscenes --root-path {root} --canbus {root}'
ROWS = [
    ('', 'the following arguments are required: {nuscenes,toy,wikitext2}'),
    ('waymo', "invalid choice: 'waymo'"),
    (NUSCENES, 'the following arguments are required: --version'),
    (f'{NUSCENES} --version v1.0-test', "invalid choice: 'v1.0-test'"),
    (f'{NUSCENES} --version v1.0-trainval', 'v1.0-trainval does not exist; unpack the metadata'),
    ('nuscenes --root-path {root}/none --canbus {root} --version v1.0-mini', 'none/v1.0-mini does'),
    (
        'nuscenes --root-path {root} --canbus {root}/none --version v1.0-mini',
        'none does not exist; name',
    ),
    (f'{NUSCENES} --version v1.0-mini --out-dir {{root}}/maps/mask.png', '--out-dir'),
    ('toy', 'the following arguments are required: --out'),
    ('toy --out {out} --scenes 0', "--scenes: '0' is not a whole number from 1 to 10"),
    ('toy --out {out} --frames 41', "--frames: '41' is not a whole number from 2 to 40"),
    ('toy --out {out} --image-size 800 31', "--image-size: '31' is not a whole number from 32 to"),
    ('toy --out {out} --seed -1', "'-1' is not a whole number from 0"),
    ('toy --out {out} --image-size 800', 'expected 2 arguments'),
]


@pytest.mark.parametrize('line, message', ROWS, ids=[line for line, _ in ROWS])
def test_refused(line, message, call_tool, root, drawn, tmp_path):
    before = contents(tmp_path)
    ended = call_tool(TOOL, *line.format(root=root, out=tmp_path / 'out').split())
    assert ended.code == 2, ended.out
    assert len(ended.errors) == 1, ended.err
    assert ended.errors[0].startswith('error: ') and message in ended.errors[0]
    assert contents(tmp_path) == before and not drawn


@pytest.mark.parametrize('out', ['{root}', '{root}/maps/mask.png', '{root}/maps/mask.png/x'])
def test_the_real_toy_touches_nothing_else(out, call_tool, root):
    before = contents(root)
    ended = call_tool(TOOL, 'toy', '--out', out.format(root=root))
    assert ended.code == 2 and len(ended.errors) == 1, ended.err
    assert '--out' in ended.errors[0] and contents(root) == before

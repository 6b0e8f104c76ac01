"""Pictures through the tool: of the toy drive, of one frame, and refusals."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / 'projects/configs/VAD/VAD_nano_toy.py')
HEAD = 'model.pts_bbox_head'
SMALL = (
    f'{HEAD}.num_query=20',
    f'{HEAD}.map_num_vec=8',
    f'{HEAD}.bbox_coder.max_num=20',
    f'{HEAD}.map_bbox_coder.max_num=8',
)


def data(root: Path, *more: str) -> tuple[str, ...]:
    """``--cfg-options`` for a drive."""
    loaders = ('train_dataloader', 'test_dataloader')
    roots = (f'{loader}.dataset.data_root={root}' for loader in loaders)
    return ('--cfg-options', *roots, *more)


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> Path:
    """A checkpoint of a small model that has learnt nothing."""
    from mmengine.registry import MODELS, init_default_scope

    from projects.prune_plugin.workflows import cli

    cfg = cli.read_config(CONFIG, SMALL)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    path = tmp_path_factory.mktemp('weights') / 'fresh.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=model.checkpoint_meta()), path)
    return path


def test_the_truth_of_a_scene(run_tool, toy_root, tmp_path):
    out = tmp_path / 'new' / 'pictures'
    ended = run_tool('visualize', CONFIG, '--gt-only', '--out', out, '--frames', '2:5',
                     '--video', 'gif', *data(toy_root))  # fmt: skip
    names = ['frame_0002.png', 'frame_0003.png', 'frame_0004.png', 'video.gif']
    assert sorted(p.name for p in out.iterdir()) == names
    assert Image.open(out / 'video.gif').n_frames == 3
    picture = cv2.imread(str(out / names[0]))
    assert picture.shape[0] > 600 and picture.std() > 20
    assert '4 files' in ended.out


def test_predictions_of_a_scene(run_tool, toy_root, tmp_path, weights):
    """A frame looks the same whether the ones before it are drawn or not."""
    common = (CONFIG, weights, '--split', 'train', '--score', '0', '--map-score', '0.0')
    for name, *more in (('all', '--frames', ':3', '--video', 'mp4'), ('last', '--frames', '2:3')):
        run_tool('visualize', *common, '--out', tmp_path / name, *more, *data(toy_root, *SMALL))
    film = cv2.VideoCapture(str(tmp_path / 'all' / 'video.mp4'))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert [p.name for p in (tmp_path / 'last').iterdir()] == ['frame_0002.png']
    pictures = [cv2.imread(str(tmp_path / name / 'frame_0002.png')) for name in ('all', 'last')]
    np.testing.assert_array_equal(*pictures)


def test_models_side_by_side(call_tool, toy_root, tmp_path, weights):
    """A column for the truth and one for each model: the columns of one model twice are the same."""
    words = (CONFIG, weights, weights, '--labels', 'one', 'two', '--score', '0', '--map-score', '0')
    ended = call_tool('visualize', *words, '--frames', ':2', '--video', 'gif', '--out', tmp_path,
                      *data(toy_root, *SMALL))  # fmt: skip
    assert ended.code == 0, ended.out
    assert Image.open(tmp_path / 'video.gif').n_frames == 2
    picture = cv2.imread(str(tmp_path / 'frame_0001.png')).astype(int)
    height, width = picture.shape[:2]
    step = (width - 2 * 16 + 16) // 3
    truth, first, second = (
        picture[height - 500 : height - 100, 50 + i * step : 40 + i * step + 240] for i in range(3)
    )
    assert abs(first - second).mean() < 1 < 3 * abs(first - truth).mean()


def test_scenes_by_token(call_tool, toy_root, tmp_path):
    from projects.vad.datasets.infos import load_infos

    infos = load_infos(toy_root / 'vad_nuscenes_infos_temporal_val.pkl')['infos']
    token = infos[0]['scene_token'][:8]
    ended = call_tool('visualize', CONFIG, '--gt-only', '--out', tmp_path, '--scene', token,
                      '--frames', '7:', *data(toy_root))  # fmt: skip
    assert ended.code == 0, ended.out
    assert [p.name for p in tmp_path.iterdir()] == ['frame_0007.png']


def write_frame(folder: Path, toy_root: Path) -> None:
    """A toy frame as a YAML record with its six images."""
    import yaml

    from projects.vad.datasets.infos import load_infos

    info = load_infos(toy_root / 'vad_nuscenes_infos_temporal_val.pkl')['infos'][0]
    folder.mkdir()
    for name, camera in info['cams'].items():
        shutil.copy(toy_root / camera['data_path'], folder / f'{name}.jpg')
    camera_keys = ('cam_intrinsic', 'sensor2lidar_rotation', 'sensor2lidar_translation')
    poses = {k: np.asarray(v).tolist() for k, v in info.items() if '2ego_' in k or '2global_' in k}
    cams = {n: {k: np.asarray(c[k]).tolist() for k in camera_keys} for n, c in info['cams'].items()}
    objects = {k: info[k].tolist() for k in ('gt_boxes', 'gt_names', 'gt_velocity')}
    record = dict(poses, cams=cams, **objects)
    (folder / 'record.yaml').write_text(yaml.safe_dump(record))


def test_one_frame(call_tool, toy_root, tmp_path, weights):
    write_frame(tmp_path / 'frame', toy_root)
    for name, *more in (('truth', '--gt-only'), ('found', weights)):
        ended = call_tool('visualize', CONFIG, *more, '--frame', tmp_path / 'frame',
                          '--out', tmp_path / name, '--cfg-options', *SMALL)  # fmt: skip
        assert ended.code == 0, ended.out
        assert [p.name for p in (tmp_path / name).iterdir()] == ['frame_0000.png']


ROWS = [
    ('', (), 'checkpoint is missing'),
    ('{out}/gone.pth', (), 'gone.pth does not exist'),
    ('a.pth b.pth --labels x', (), '--labels has 1 names for 2 checkpoints'),
    ('a.pth b.pth --frame {out}', (), '--frame takes one checkpoint'),
    ('--gt-only --scene 9', (), '--scene 9 fits 0 scenes; 0 to 0, or the beginning of a token'),
    ('--gt-only --frames 3', (), "'3' is not of the form START:STOP"),
    ('--gt-only --frames 5:5', (), '--frames 5:5 holds none of the 8 frames'),
    ('--gt-only --frames 80:', (), '--frames 80: holds none of the 8 frames'),
    ('--gt-only --score 2', (), "'2' is not a number in [0, 1]"),
    ('--gt-only --video avi', (), 'avi'),
    ('--gt-only --split test', (), 'test'),
    ('--gt-only --frame {out}', (), 'does not exist'),
    ('--gt-only', ('test_dataloader=None',), 'has no test_dataloader.dataset'),
    ('--gt-only --split train', ('train_dataloader=None',), 'has no train_dataloader.dataset'),
    ('--gt-only', ('test_dataloader.dataset.data_root=none/at/all',), 'does not exist'),
]


@pytest.mark.parametrize('words, more, said', ROWS)
def test_mistakes_end_with_one_sentence(call_tool, toy_root, tmp_path, words, more, said):
    out = tmp_path / 'out'
    words = words.format(out=out).split()
    ended = call_tool('visualize', CONFIG, *words, '--out', out, *data(toy_root, *more))
    assert ended.code == 2, ended.out
    assert len(ended.errors) == 1 and said in ended.errors[0], ended.out
    assert not out.exists()


def test_a_missing_image_leaves_nothing(call_tool, toy_root, tmp_path):
    from projects.vad.datasets.infos import load_infos

    drive = shutil.copytree(toy_root, tmp_path / 'drive')
    infos = load_infos(drive / 'vad_nuscenes_infos_temporal_val.pkl')['infos']
    last = max(infos, key=lambda info: info['timestamp'])
    name = Path(last['cams']['CAM_BACK']['data_path']).name
    (drive / 'samples/CAM_BACK' / name).unlink()
    ended = call_tool('visualize', CONFIG, '--gt-only', '--out', tmp_path / 'out', '--frames', '6:',
                      '--video', 'mp4', *data(drive))  # fmt: skip
    assert ended.code == 2 and name in ended.errors[0], ended.out
    assert not (tmp_path / 'out').exists()

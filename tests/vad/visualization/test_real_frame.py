"""A real nuScenes frame goes through the VAD-tiny of the config, with fresh weights."""

import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from projects.vad.visualization import single_view

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = Path(
    os.environ.get('NUSCENES_FRAME') or ROOT.parent / 'shared' / 'data' / 'nuscenes_sample0'
)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason='needs the real nuScenes frame')
def test_a_real_frame_goes_through_vad_tiny():
    cfg = Config.fromfile(ROOT / 'projects/configs/VAD/VAD_tiny_stage_2.py')
    cfg.model.img_backbone.init_cfg = None
    init_default_scope('mmdet3d')
    model = MODELS.build(cfg.model).eval()
    seen = []
    model.data_preprocessor.register_forward_hook(lambda *args: seen.append(args[-1]))
    view = single_view(cfg, SAMPLE, model, score=0, map_score=0)
    assert seen[0]['inputs']['img'].shape == (1, 1, 6, 3, 384, 640)
    assert seen[0]['data_samples'][0].frames[0]['img_shape'] == (384, 640)
    assert 0 < len(view.found) <= 100 and len(view.found_lines.labels) <= 50
    found = (view.found.boxes, view.found.paths, view.found_lines.points, view.planned_path)
    assert all(torch.from_numpy(values).isfinite().all() for values in found)
    assert view.found.paths.shape[1:] == (6, 7, 2) and view.planned_path.shape == (7, 2)
    assert view.found.best is not None
    assert len(view.truth) == 37

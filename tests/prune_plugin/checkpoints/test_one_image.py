"""mmdet's DETR, which takes data samples, as a function of one image."""

import pytest
import torch

from projects.prune_plugin import build_pruner
from projects.prune_plugin.checkpoints.export.one_image import OneImage, as_one_image


def tiny_detr():
    """A DETR of one layer on a thin ResNet-18."""
    pytest.importorskip('mmdet')
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.registry import MODELS

    register_all_modules(init_default_scope=True)
    import mmdet

    path = f'{mmdet.__path__[0]}/.mim/configs/detr/detr_r50_8xb2-150e_coco.py'
    try:
        cfg = Config.fromfile(path).model
    except FileNotFoundError:
        pytest.skip('the package has no configs')
    cfg.backbone.update(depth=18, base_channels=8, init_cfg=None, norm_eval=True)
    cfg.neck.in_channels = [64]
    cfg.encoder.num_layers = cfg.decoder.num_layers = 1
    cfg.num_queries = 9
    torch.manual_seed(0)
    return MODELS.build(cfg).eval()


def test_a_slim_detr_in_onnxruntime(tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    from projects.prune_plugin.checkpoints.export.onnx_export import save_onnx

    model, shape = tiny_detr(), (3, 64, 96)
    pruner = build_pruner(dict(budget=dict(ratio=0.3), profile=dict(input_shape=shape)))
    pruner.apply(model, pruner.plan(model))
    images = torch.randn(1, *shape)
    with torch.no_grad():
        expected = OneImage(model, shape)(images)
    assert save_onnx(model, tmp_path / 'a.onnx', shape) < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / 'a.onnx')
    found = session.run(None, {'inputs': images.numpy()})
    assert len(found) == len(expected) == 2
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), theirs, atol=1e-4, rtol=1e-3)


def test_other_models_are_themselves():
    model = torch.nn.Conv2d(3, 4, 1)
    assert as_one_image(model, (3, 8, 8)) is model and as_one_image(model, None) is model

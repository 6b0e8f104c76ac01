"""OpenVINO's own files in the place of checkpoints."""

import pytest
import torch
from mmengine.config import Config

openvino = pytest.importorskip('openvino')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')
pytest.importorskip('timm')

from projects.prune_plugin import UserError  # noqa: E402
from projects.prune_plugin.checkpoints.engines.files import load_engine  # noqa: E402
from projects.prune_plugin.checkpoints.export.onnx_export import save_onnx  # noqa: E402
from projects.prune_plugin.workflows.compare import describe  # noqa: E402
from projects.vit.models import TimmClassifier  # noqa: E402

KWARGS = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4)


def config(num_classes: int = 10) -> Config:
    arch = 'vit_tiny_patch16_224'
    model = dict(type='TimmClassifier', arch=arch, num_classes=num_classes, model_kwargs=KWARGS)
    return Config(dict(model=model))


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """A model and its file."""
    torch.manual_seed(0)
    model = TimmClassifier('vit_tiny_patch16_224', 10, model_kwargs=dict(KWARGS)).eval()
    folder = tmp_path_factory.mktemp('openvino')
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
    params = sum(p.numel() for p in model.parameters())
    save_onnx(model, folder / 'a.onnx')
    graph = openvino.Core().read_model(folder / 'a.onnx')
    openvino.save_model(graph, folder / 'a.xml', compress_to_fp16=False)
    return folder / 'a.xml', images, expected, params


def test_logits_and_size(written):
    path, images, expected, params = written
    loaded = load_engine(config(), path, threads=1)
    torch.testing.assert_close(loaded.model(images), expected, rtol=0, atol=2e-2)
    (label,) = loaded.model(images[:1], torch.tensor([0]), mode='predict')
    assert int(label['pred_label']) == int(expected[0].argmax())
    row = describe(loaded, path)
    assert row['structure'] == 'openvino' and row['params'] == pytest.approx(params, rel=0.02)
    assert row['weight_bytes'] == path.with_suffix('.bin').stat().st_size
    assert row['weight_bytes'] == pytest.approx(4 * params, rel=0.05)


def test_files_of_other_models_and_broken_ones_are_refused(written, tmp_path):
    with pytest.raises(UserError, match=r'a.xml belongs to another model than config .*\(1, 7\)'):
        load_engine(config(7), written[0])
    (tmp_path / 'b.xml').write_text('<net')
    with pytest.raises(UserError, match='b.xml cannot be read by OpenVINO: '):
        load_engine(config(), tmp_path / 'b.xml')

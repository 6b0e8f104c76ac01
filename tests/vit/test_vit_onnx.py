"""Files with a traced forward pass: slim ViTs and ResNets in onnxruntime and in ``torch.export``."""

import numpy as np
import pytest
import torch
from torch import nn

onnxruntime = pytest.importorskip('onnxruntime')
onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxscript')
pytest.importorskip('timm')

from projects.prune_plugin import PruneState, UserError, build_pruner, slim  # noqa: E402
from projects.prune_plugin.checkpoints.export import onnx_export  # noqa: E402
from projects.prune_plugin.checkpoints.export.onnx_export import save_onnx  # noqa: E402
from projects.prune_plugin.checkpoints.export.torch_export import save_exported  # noqa: E402
from projects.prune_plugin.checkpoints.export.tracing import difference  # noqa: E402
from projects.vit.models import TimmClassifier  # noqa: E402

SMALL = dict(img_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=4)
HEADS, NEURONS = dict(type='AttentionHeads'), dict(type='FFNNeurons')
LAYERS, CHANNELS = dict(type='PreNormLayers'), dict(type='BottleneckChannels')
IMAGES = torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def vit() -> nn.Module:
    torch.manual_seed(0)
    return TimmClassifier('vit_tiny_patch16_224', 10, model_kwargs=dict(SMALL)).eval()


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return TimmClassifier('resnet18', 10, cifar_stem=True).eval()


def cut(model, units, count):
    """``model`` with the first ``count(group)`` units of each group."""
    plan = build_pruner(dict(units=units, criterion=dict(type='Random'))).plan(model)
    kept = {g.name: torch.arange(count(g)) for g in plan.groups}
    return slim(model, PruneState({g.name: g for g in plan.groups}, kept)).eval()


def half(group) -> int:
    return group.size // 2


def uneven(group) -> int:
    """Another number in each layer."""
    return group.size - 1 - group.layer_idx


def emptied(kind):
    """All units of ``kind`` in layer 2 go, and half of everything else."""
    return lambda group: 0 if (group.kind, group.layer_idx) == (kind, 2) else group.size // 2


def without_layer_1(group) -> int:
    return int(group.layer_idx != 1) if group.kind == 'layer' else group.size // 2


MODELS = {
    'dense vit': vit,
    'uneven vit': lambda: cut(vit(), [HEADS, NEURONS], uneven),
    'no heads in a layer': lambda: cut(vit(), [HEADS, NEURONS], emptied('attention')),
    'no neurons in a layer': lambda: cut(vit(), [HEADS, NEURONS], emptied('mlp')),
    'nothing in any layer': lambda: cut(vit(), [HEADS, NEURONS], lambda group: 0),
    'a layer less': lambda: cut(vit(), [HEADS, NEURONS, LAYERS], without_layer_1),
    'slim resnet': lambda: cut(resnet(), [CHANNELS], half),
}


def logits(model) -> np.ndarray:
    with torch.no_grad():
        return model(IMAGES).numpy()


def in_onnxruntime(path, images) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    (output,) = session.run(['output'], {'inputs': images.numpy()})
    return output


@pytest.mark.parametrize('name', MODELS)
def test_onnxruntime_gives_the_models_logits(name, tmp_path):
    model, file = MODELS[name](), tmp_path / 'model.onnx'
    expected = logits(model)
    said = save_onnx(model, file)
    assert 0 <= said < 1e-5
    for number in (7, 1):  # numbers of samples that the export itself has not tried
        np.testing.assert_allclose(
            in_onnxruntime(file, IMAGES[:number]),
            expected[:number],
            rtol=0,
            atol=1e-5 * np.abs(expected).max(),
        )
    proto = onnx.load(file)
    onnx.checker.check_model(proto, full_check=True)
    assert [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] == [
        'batch', 3, 32, 32,
    ]  # fmt: skip
    weights = sum(t.numel() for t in model.state_dict().values())
    assert sum(int(np.prod(t.dims)) for t in proto.graph.initializer) <= weights + 100  # slim too
    assert b'.py' not in file.read_bytes()  # no names of source files
    assert [p.name for p in tmp_path.iterdir()] == ['model.onnx']


@pytest.mark.parametrize('name', ['uneven vit', 'nothing in any layer', 'slim resnet'])
def test_torch_export_gives_the_models_logits(name, tmp_path):
    model, file = MODELS[name](), tmp_path / 'model.pt2'
    expected = logits(model)
    assert save_exported(model, file) < 1e-5
    assert b'.py' not in file.read_bytes()
    loaded = torch.export.load(file).module()
    for number in (7, 1):
        with torch.no_grad():
            found = loaded(inputs=IMAGES[:number]).numpy()
        np.testing.assert_allclose(found, expected[:number], rtol=0, atol=1e-5)


class Plain(nn.Module):
    """A model whose forward pass is ``body``; it says by itself what it takes."""

    def __init__(self, body):
        super().__init__()
        self.linear, self.body = nn.Linear(4, 4), body

    def dummy_inputs(self, batch_size=1):
        return {'inputs': torch.zeros(batch_size, 4)}

    def forward(self, inputs):
        return self.body(self.linear(inputs))


def test_a_transformer_of_torch_and_several_outputs(tmp_path):
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            y = self.layer(x)
            return {'all': y, 'mean': [y.mean(1)]}

    model = Two().eval()
    save_onnx(model, tmp_path / 'a.onnx', input_shape=(5, 16))
    save_exported(model, tmp_path / 'a.pt2', input_shape=(5, 16))
    x = torch.randn(6, 5, 16)
    session = onnxruntime.InferenceSession(str(tmp_path / 'a.onnx'))
    found = session.run(['output_0', 'output_1'], {'x': x.numpy()})
    with torch.no_grad():
        expected = model(x)
    np.testing.assert_allclose(found[0], expected['all'].numpy(), atol=1e-5)
    np.testing.assert_allclose(found[1], expected['mean'][0].numpy(), atol=1e-5)


def test_half_precision_is_written_as_float32(tmp_path):
    model = Plain(torch.relu).to(torch.bfloat16).eval()
    weight = model.linear.weight.detach().float().clone()
    save_onnx(model, tmp_path / 'a.onnx')
    (found,) = onnxruntime.InferenceSession(str(tmp_path / 'a.onnx')).run(
        None, {'inputs': np.eye(4, dtype=np.float32)}
    )
    bias = model.linear.bias.detach()
    np.testing.assert_allclose(found, torch.relu(weight.T + bias).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    'body, said',
    [
        # An operator that ONNX lacks; torch.export has it.
        (torch.linalg.qr, 'Plain cannot be converted to ONNX .*qr.* --save-exported FILE.pt2'),
        # A graph that depends on values.
        (lambda x: x if x.sum() > 0 else -x, 'torch.export cannot trace the forward pass of Plain'),
        # A forward pass that takes an even number of samples, and one that takes two.
        (lambda x: x.reshape(2, -1, 4), 'fails on its example input .*neither --save-onnx nor'),
        (lambda x: x + torch.zeros(2 if len(x) == 2 else 1, 4), 'torch.export cannot trace'),
        # A result that depends on chance.
        (lambda x: x + torch.rand_like(x), 'differs from PyTorch by .*more than 0.0001'),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_said_and_leaves_no_file(body, said, tmp_path):
    with pytest.raises(UserError, match=f'(?s)--save-onnx.*{said}') as raised:
        save_onnx(Plain(body).eval(), tmp_path / 'new' / 'a.onnx')
    assert '\n' not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_what_onnx_cannot_say_goes_by_torch_export(tmp_path):
    model = Plain(lambda x: tuple(torch.linalg.qr(x))).eval()
    save_exported(model, tmp_path / 'a.pt2')
    x = torch.randn(4, 4)
    with torch.no_grad():
        q, r = torch.export.load(tmp_path / 'a.pt2').module()(inputs=x)
        torch.testing.assert_close(q @ r, model.linear(x))


def test_a_wrong_graph_is_never_written(tmp_path, monkeypatch):
    """Weights that change between tracing and comparing: both files are refused, an old one stays."""
    monkeypatch.setattr('projects.prune_plugin.checkpoints.export.tracing.LIMIT', -1.0)
    for save, file in ((save_onnx, 'a.onnx'), (save_exported, 'a.pt2')):
        (tmp_path / file).write_text('old')
        with pytest.raises(UserError, match='differs from PyTorch'):
            save(vit(), tmp_path / file)
        assert (tmp_path / file).read_text() == 'old'


def test_inputs_that_are_no_tensors_and_models_too_large_are_refused(tmp_path, monkeypatch):
    model = Plain(torch.relu)
    monkeypatch.setattr(onnx_export, 'MAX_BYTES', 4 * 19)
    with pytest.raises(UserError, match='weights of Plain do not fit .* --save-exported'):
        save_onnx(model, tmp_path / 'a.onnx')
    model.dummy_inputs = lambda size: {'inputs': torch.zeros(size, 4), 'metas': [object()]}
    with pytest.raises(UserError, match='Plain takes object beside tensors'):
        save_exported(model, tmp_path / 'a.pt2')
    with pytest.raises(UserError, match='torch.export cannot save what Plain returns .*linalg_qr'):
        save_exported(Plain(torch.linalg.qr).eval(), tmp_path / 'a.pt2')
    assert not list(tmp_path.iterdir())


def test_differences_are_relative_to_the_outputs_scale():
    two = torch.tensor([[100.0, -200.0], [1.0, -torch.inf]])
    assert difference([two + 0.0], [two]) == 0
    assert difference([two + torch.tensor([1.0, 0.0])], [two]) == pytest.approx(1 / 200)
    for wrong in (two[:1], two.nan_to_num(neginf=0.0), two * torch.nan):
        assert difference([wrong], [two]) == float('inf')
    assert difference([], [two]) == float('inf')
    zeros = torch.zeros(3)
    assert difference([zeros + 0.5], [zeros]) == 0.5

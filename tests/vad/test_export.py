"""VAD as a graph of one frame: the model's own numbers, in PyTorch, onnxruntime and OpenVINO."""

import importlib.util

import numpy as np
import pytest
import tiny_vad as tiny
import torch

from projects.prune_plugin import UserError, build_pruner
from projects.vad.export import FrameGraph
from projects.vad.export.frame_graph import OUTPUTS


def build(prune: bool = False, **options):
    """The tiny model, dense or slim."""
    model = tiny.build(**options)
    if prune:
        pruner = build_pruner(dict(budget=dict(type='params', ratio=0.3)))
        pruner.apply(model, pruner.plan(model))
    return model.eval()


@torch.no_grad()
def own(model, frame: dict, previous: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """What the model itself says, from arguments of a graph."""
    described = dict(
        can_bus=frame['can_bus'][0].double().numpy(),
        lidar2img=frame['lidar2img'][0].double().numpy(),
        img_shape=model.input_shape[1:],
    )
    bev = model.pts_bbox_head.encode(model.extract_feat(frame['images']), [described], previous)
    outs = model.pts_bbox_head(bev, frame.get('ego_history'))
    found = {name: outs[key][-1] for key, name in OUTPUTS.items()}
    return {**found, 'ego_trajectories': outs['ego_fut_preds'], 'bev': bev}


def assert_close(found, expected, limit):
    """Every output within a part of its own scale."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        gap = (torch.as_tensor(found[name]) - value).abs().max() / value.abs().max()
        assert gap <= limit, (name, float(gap))


def chained(model, run, limit):
    """Three frames, each with the BEV of the one before, then another rig from the start."""
    graph, previous = FrameGraph(model), None
    for number in (0, 2, 4, 1):
        first = number in (0, 1)
        frame = graph.export_example(number)
        frame['has_previous'] = torch.tensor([0.0 if first else 1.0])
        if not first:
            frame['previous_bev'] = previous
        expected = own(model, frame, None if first else previous)
        assert_close(run(frame), expected, limit)
        previous = expected['bev']


@pytest.mark.parametrize('prune', [False, True], ids=['dense', 'slim'])
def test_the_graph_is_the_model(prune):
    model = build(prune)
    graph = FrameGraph(model)
    with torch.no_grad():
        chained(model, lambda frame: graph(**frame), 1e-5)


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """A slim model with the ego's history, and its file."""
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(package)
    from projects.prune_plugin.checkpoints.export.onnx_export import save_onnx

    path = tmp_path_factory.mktemp('onnx') / 'vad.onnx'
    model = build(prune=True, layers=1, pts_bbox_head__ego_his_encoder=True)
    assert save_onnx(model, path) < 1e-4
    return model, path


def test_frames_in_onnxruntime(exported):
    import onnxruntime

    model, path = exported
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    names = [node.name for node in session.get_outputs()]

    def run(frame):
        arrays = {key: tensor.numpy() for key, tensor in frame.items()}
        return dict(zip(names, session.run(None, arrays), strict=True))

    chained(model, run, 1e-3)


@pytest.mark.skipif(importlib.util.find_spec('openvino') is None, reason='no OpenVINO')
def test_frames_in_openvino(exported):
    import openvino

    model, path = exported
    compiled = openvino.Core().compile_model(str(path), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    names = [node.get_any_name() for node in compiled.outputs]

    def run(frame):
        found = compiled({key: tensor.numpy() for key, tensor in frame.items()})
        return {name: np.array(found[i]) for i, name in enumerate(names)}

    chained(model, run, 1e-3)


def test_other_graphs_are_as_before():
    """A model without a view of its own is traced itself."""
    from projects.prune_plugin.checkpoints.export.tracing import examples_of

    with pytest.raises(UserError, match='input'):
        examples_of(torch.nn.Linear(3, 4), None, '--save-onnx')
    ((arguments, _), *_) = examples_of(torch.nn.Conv2d(3, 4, 1), (3, 8, 8), '--save-onnx')
    assert arguments[0].shape == (2, 3, 8, 8)

"""The whole model: its memory in test mode, its history in training, what it predicts."""

import copy
import pickle

import numpy as np
import pytest
import tiny_vad as tiny
import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import BaseDataElement, InstanceData

from projects.prune_plugin.common.errors import UserError


@pytest.fixture
def model():
    return tiny.build()


@pytest.fixture
def calls(model, monkeypatch):
    """What the transformer was asked to encode: pairs of frames and previous BEV."""
    kept, encode = [], model.pts_bbox_head.transformer.encode

    def spy(features, queries, pos, shape, frames, size, previous=None):
        kept.append((frames, previous))
        return encode(features, queries, pos, shape, frames, size, previous)

    monkeypatch.setattr(model.pts_bbox_head.transformer, 'encode', spy)
    return kept


@torch.no_grad()
def run(model, *frames, mode='tensor', seed=0):
    """One batch of frames, one frame per sample."""
    inputs = dict(img=tiny.images(len(frames), seed=seed))
    return model(inputs, [tiny.sample([frame]) for frame in frames], mode=mode)


def assert_same(found, expected, exact=True):
    assert set(found) == set(expected)
    for name, x in expected.items():
        if exact:
            assert torch.equal(found[name], x), name
        else:
            torch.testing.assert_close(found[name], x, atol=1e-4, rtol=1e-4)


def test_second_frame_sees_the_first(model, calls):
    first, second = tiny.frame(0), tiny.frame(1)
    before = run(model, first)['bev_embed'].clone()
    after = run(model, second)
    ((given,), previous), ((then,), history) = calls
    assert previous is None and torch.equal(history, before.transpose(0, 1))
    assert not given['can_bus'][:3].any() and given['can_bus'][-1] == 0
    np.testing.assert_array_equal(given['can_bus'][3:-1], first['can_bus'][3:-1])
    step = second['can_bus'] - first['can_bus']
    np.testing.assert_array_equal(then['can_bus'][:3], step[:3])
    assert then['can_bus'][-1] == step[-1]
    np.testing.assert_array_equal(then['can_bus'][3:-1], second['can_bus'][3:-1])
    model.reset()
    assert not torch.equal(run(model, second)['all_cls_scores'], after['all_cls_scores'])


def test_turning_past_north_is_a_plain_difference(model, calls):
    """The original's network sees -358 here, and so must this one."""
    frames = [tiny.frame(0), tiny.frame(1)]
    frames[0]['can_bus'][-1], frames[1]['can_bus'][-1] = 359.0, 1.0
    for frame in frames:
        run(model, frame)
    assert calls[1][0][0]['can_bus'][-1] == -358.0


@pytest.mark.parametrize(
    'between, following',
    [
        (lambda m: None, tiny.frame(1, scene='b')),
        (lambda m: None, tiny.frame(1, timestamp=1e9 - 1)),
        (lambda m: None, tiny.frame(1, timestamp=1e9)),
        (lambda m: m.reset(), tiny.frame(1)),
        (lambda m: m.eval(), tiny.frame(1)),
        (lambda m: m.train().eval(), tiny.frame(1)),
        (lambda m: setattr(m, 'video_test_mode', False), tiny.frame(1)),
    ],
    ids=['scene', 'backwards', 'same time', 'reset', 'eval', 'train', 'no video'],
)
def test_memory_is_dropped(model, calls, between, following):
    run(model, tiny.frame(0))
    between(model)
    found = run(model, following)
    (frame,), previous = calls[1]
    assert previous is None and not frame['can_bus'][:3].any() and frame['can_bus'][-1] == 0
    model.reset()
    assert_same(found, run(model, following))


def test_memory_is_of_one_frame_back(model, calls):
    """Positions are those of the frame before, not of the scene's first."""
    for i in range(3):
        run(model, tiny.frame(i))
    step = tiny.frame(2)['can_bus'][:3] - tiny.frame(1)['can_bus'][:3]
    np.testing.assert_array_equal(calls[2][0][0]['can_bus'][:3], step)


def test_without_video_nothing_is_remembered():
    model = tiny.build(video_test_mode=False)
    assert_same(run(model, tiny.frame(0)), run(model, tiny.frame(0)))
    assert model.memory is None


def test_frames_without_a_time_follow_each_other(model, calls):
    for i in range(2):
        run(model, tiny.frame(i, timestamp=None))
    assert calls[1][1] is not None


def test_samples_of_a_batch_continue_each_other(model):
    frames = [tiny.frame(0), tiny.frame(1), tiny.frame(5, scene='b'), tiny.frame(6, scene='b')]
    together = run(model, *frames)
    model.reset()
    images = tiny.images(4)
    for i, frame in enumerate(frames):
        with torch.no_grad():
            alone = model(dict(img=images[i : i + 1]), [tiny.sample([frame])], mode='tensor')
        for name, x in alone.items():
            part = together[name][i : i + 1]
            if name != 'ego_fut_preds':
                part = together[name][:, i : i + 1]
            torch.testing.assert_close(part, x, atol=1e-4, rtol=1e-4)


def test_remembered_features_are_not_written_to(model):
    outs = run(model, tiny.frame(0))
    before = outs['bev_embed'].clone()
    run(model, tiny.frame(1))
    assert torch.equal(outs['bev_embed'], before)
    assert not model.memory.bev.requires_grad


@pytest.mark.parametrize('mode', ['predict', 'loss'])
def test_inputs_stay_as_they_are(model, mode):
    frames = [tiny.frame(0), tiny.frame(1)]
    if mode == 'loss':
        frames = tiny.relative(frames)
        model.train()
    data, images = tiny.sample(frames, truth=mode == 'loss'), tiny.images(1, 2)
    pixels, before = images.clone(), copy.deepcopy(frames)
    model(dict(img=images), [data], mode=mode)
    assert torch.equal(images, pixels)
    for found, expected in zip(data.metainfo['frames'], before, strict=True):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value)


def test_test_mode_takes_the_last_frame_of_a_queue(model):
    images = tiny.images(1, 2)
    queue = tiny.sample([tiny.frame(0), tiny.frame(1)])
    with torch.no_grad():
        found = model(dict(img=images), [queue], mode='tensor')
        model.reset()
        expected = model(dict(img=images[:, 1:]), [tiny.sample([tiny.frame(1)])], mode='tensor')
    assert_same(found, expected)


@pytest.mark.parametrize('training', [True, False])
def test_history_is_the_frames_one_by_one(model, training):
    frames, images = [tiny.frame(i) for i in range(3)], tiny.images(2, 3)
    others = [tiny.frame(i, scene='b') for i in (10, 11, 12)]
    for i in range(3):
        with torch.no_grad():
            model(dict(img=images[:1, i : i + 1]), [tiny.sample([frames[i]])], mode='tensor')
    expected = model.memory.bev
    model.train(training)
    found = model.history(images, [tiny.relative(frames), tiny.relative(others)])
    assert found.shape[0] == 2 and not found.requires_grad
    torch.testing.assert_close(found[:1], expected, atol=1e-4, rtol=1e-4)
    assert model.training == training and model.pts_bbox_head.training == training
    assert not any(
        m.training for m in model.img_backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)
    )


def test_a_module_kept_in_test_mode_stays_there(model):
    """Who freezes a part's dropout finds it frozen after a training step."""
    model.train()
    model.pts_bbox_head.motion_decoder.eval()
    model.history(tiny.images(1, 1), [tiny.relative([tiny.frame(0)])])
    assert model.training and not model.pts_bbox_head.motion_decoder.training


def test_training_sees_the_history_and_masks_the_last_frame_alone(model, calls, monkeypatch):
    masked = []
    monkeypatch.setattr(model.grid_mask, 'forward', lambda x: masked.append(x) or x)
    model.train()
    frames, images = tiny.relative([tiny.frame(i) for i in range(3)]), tiny.images(1, 3)
    model(dict(img=images), [tiny.sample(frames, truth=True)], mode='loss')
    assert [previous is None for _, previous in calls] == [True, False, False]
    assert [item['sample_idx'] for (item,), _ in calls] == ['a0', 'a1', 'a2']
    (last,) = masked
    assert torch.equal(last, images[0, -1])
    assert model.memory is None


def test_training_without_a_history(model, calls):
    model.train()
    frames = tiny.relative([tiny.frame(0)])
    losses = model(dict(img=tiny.images()), [tiny.sample(frames, truth=True)], mode='loss')
    assert len(calls) == 1 and calls[0][1] is None
    assert sum(losses.values()).isfinite()


def test_a_batch_of_two_trains(model):
    model.train()
    samples = [
        tiny.sample(tiny.relative([tiny.frame(i), tiny.frame(i + 1)]), truth=True, index=i // 10)
        for i in (0, 10)
    ]
    losses = model(dict(img=tiny.images(2, 2)), samples, mode='loss')
    assert sum(losses.values()).isfinite()


def test_predictions_are_complete(model):
    samples = run(model, tiny.frame(0), tiny.frame(1), mode='predict')
    assert len(samples) == 2
    for sample in samples:
        boxes, lines, ego = sample.pred_instances_3d, sample.pred_map, sample.pred_ego
        assert isinstance(boxes, InstanceData) and isinstance(lines, InstanceData)
        assert isinstance(ego, BaseDataElement) and ego.fut_preds.shape == (3, 6, 2)
        n, m = len(boxes), len(lines)
        assert 0 < n <= 100 and 0 < m <= 50
        assert boxes.bboxes_3d.shape == (n, 9) and boxes.trajs_3d.shape == (n, 6, 12)
        assert boxes.scores_3d.shape == (n,) and boxes.labels_3d.dtype == torch.int64
        assert lines.bboxes.shape == (m, 4) and lines.pts.shape == (m, 20, 2)
        assert lines.scores.shape == (m,) and lines.labels.dtype == torch.int64
        assert sample.metainfo['frames'] and not ego.fut_preds.requires_grad


def test_predictions_are_the_decoded_outputs(model):
    outs = run(model, tiny.frame(0))
    model.reset()
    (sample,) = run(model, tiny.frame(0), mode='predict')
    (expected,) = model.pts_bbox_head.decode(outs)
    assert torch.equal(sample.pred_instances_3d.bboxes_3d, expected['objects']['bboxes'])
    assert torch.equal(sample.pred_map.pts, expected['lines']['pts'])
    assert torch.equal(sample.pred_ego.fut_preds, outs['ego_fut_preds'][0])


def test_test_step_prepares_images(model):
    """Raw images of another size are normalised and padded; frames learn the padded size."""
    raw = torch.randint(0, 256, (1, tiny.CAMERAS, 3, 60, 90)).float()
    data = dict(
        inputs=dict(img=[raw]), data_samples=[tiny.sample([tiny.frame(0, img_shape=(60, 90))])]
    )
    (sample,) = model.test_step(data)
    assert sample.metainfo['frames'][0]['img_shape'] == (64, 96)
    assert len(sample.pred_instances_3d)


def test_unknown_modes_are_refused(model):
    with pytest.raises(UserError, match="mode='train' is unknown"):
        run(model, tiny.frame(0), mode='train')


@pytest.mark.parametrize('batch', [1, 2])
def test_example_input_has_no_history(model, calls, batch):
    """However often it is used: measurements must not depend on the one before."""
    for _ in range(2):
        with torch.no_grad():
            model(**model.dummy_inputs(batch), mode='tensor')
    assert len(calls) == 2 * batch
    assert all(previous is None for _, previous in calls)


def test_example_input_is_seen_all_round(model):
    sample = model.dummy_inputs()['data_samples'][0]
    matrices = sample.metainfo['frames'][0]['lidar2img']
    assert matrices.shape == (tiny.CAMERAS, 4, 4)
    x, y, depth, _ = matrices[0] @ [0.0, 10.0, 0.0, 1.0]  # 10 m ahead of the first camera
    assert depth == pytest.approx(10) and x / depth == pytest.approx(tiny.WIDTH / 2)
    assert y / depth == pytest.approx(tiny.HEIGHT / 2)
    assert (matrices[0] @ [1.0, 10.0, 1.0, 1.0])[0] / 10 > tiny.WIDTH / 2  # right is right
    assert (matrices[0] @ [1.0, 10.0, 1.0, 1.0])[1] / 10 < tiny.HEIGHT / 2  # up is up


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_models_of_their_own(model, copied):
    run(model, tiny.frame(0))
    twin = copied(model)
    twin.reset()
    model.reset()
    expected = run(model, tiny.frame(1))
    assert_same(run(twin, tiny.frame(1)), expected)
    assert list(twin.state_dict()) == list(model.state_dict())


def test_nothing_but_weights_is_in_the_state_dict(model):
    before = set(model.state_dict())
    run(model, tiny.frame(0))
    assert set(model.state_dict()) == before
    assert not any('memory' in name or 'mean' == name.split('.')[-1] for name in before)


def test_training_after_inference_mode(model):
    data = [tiny.sample([tiny.frame(0)])]
    with torch.inference_mode():
        model(dict(img=tiny.images()), data, mode='predict')
    frames = tiny.relative([tiny.frame(0)])
    losses = model.train()(dict(img=tiny.images()), [tiny.sample(frames, truth=True)], mode='loss')
    sum(losses.values()).backward()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_mixed_precision_trains_and_predicts(model, dtype):
    with torch.autocast('cpu', dtype=dtype):
        (sample,) = run(model, tiny.frame(0), mode='predict')
        model.train()
        frames = tiny.relative([tiny.frame(0), tiny.frame(1)])
        data = [tiny.sample(frames, truth=True)]
        losses = model(dict(img=tiny.images(1, 2)), data, mode='loss')
    assert all(loss.isfinite() for loss in losses.values())
    assert sample.pred_instances_3d.bboxes_3d.dtype == torch.float32
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_history_of_the_ego_reaches_the_plan():
    """With ``ego_his_encoder`` the plan depends on how the ego moved so far, and on nothing else's."""
    model = tiny.build(pts_bbox_head__ego_his_encoder=True)
    samples = [tiny.sample([tiny.frame(0)], truth=True) for _ in range(3)]
    samples[1].gt_ego.his_trajs = samples[0].gt_ego.his_trajs + 1.0
    with torch.no_grad():
        outs = model(dict(img=tiny.images().expand(3, -1, -1, -1, -1, -1)), samples, mode='tensor')
    plans = outs['ego_fut_preds']
    torch.testing.assert_close(plans[0], plans[2])
    assert (plans[0] - plans[1]).abs().max() > 1e-3
    assert torch.equal(outs['all_cls_scores'][:, 0], outs['all_cls_scores'][:, 1])


def test_missing_history_of_the_ego_is_an_error():
    model = tiny.build(pts_bbox_head__ego_his_encoder=True)
    with pytest.raises(UserError, match='his_trajs'):
        run(model, tiny.frame(0))


def test_published_models_need_no_history_of_the_ego(model):
    data = tiny.sample([tiny.frame(0)], truth=True)
    del data.gt_ego.his_trajs
    with torch.no_grad():
        model(dict(img=tiny.images()), [data], mode='predict')


def test_samples_are_det3d(model):
    assert isinstance(run(model, tiny.frame(0), mode='predict')[0], Det3DDataSample)

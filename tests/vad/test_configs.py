"""Every config of VAD: what it builds, and how the stages and sizes differ."""

import json
import os
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from projects.vad.datasets.nuscenes_dataset import CLASSES

CONFIGS = Path(__file__).parents[2] / 'projects' / 'configs' / 'VAD'
REFERENCE = Path(os.environ.get('VAD_REFERENCE') or Path(__file__).parents[3] / 'shared' / 'vad')
FILES = sorted(CONFIGS.glob('*.py'))
PUBLISHED = [f'VAD_{size}_{s}' for size in ('tiny', 'base') for s in ('stage_1', 'stage_2', 'e2e')]
PARAMETERS = dict(tiny=(39_865_999, 746), base=(58_357_786, 1062))
TORCHVISION = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])

#: Losses' weights; classes, boxes, map classes, map points, then the plan's four.
WEIGHTS = dict(
    stage_1=(2.0, 0.25, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0),
    stage_2=(0.8, 0.1, 0.8, 0.4, 1.0, 1.0, 1.0, 0.5),
    e2e=(2.0, 0.25, 2.0, 1.0, 1.0, 1.0, 1.0, 0.5),
)
EPOCHS = dict(stage_1=48, stage_2=12, e2e=60)


def load(name: str) -> Config:
    return Config.fromfile(CONFIGS / f'{name}.py')


@cache
def built(name: str) -> torch.nn.Module:
    """The config's model without memory for its weights."""
    cfg = load(name)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def test_all_are_there():
    assert set(PUBLISHED) <= {path.stem for path in FILES}


@pytest.mark.parametrize('name', PUBLISHED)
def test_says_only_what_differs(name):
    assert len((CONFIGS / f'{name}.py').read_text().splitlines()) < 40


@pytest.mark.parametrize('path', FILES, ids=lambda p: p.stem)
def test_builds(path):
    model = built(path.stem)
    assert model.pts_bbox_head.loss is not None
    cfg = load(path.stem)
    assert model.pts_bbox_head.cls_branches[0][-1].out_features == len(cfg.classes)
    assert list(cfg.classes) == list(CLASSES)
    assert list(cfg.pc_range) == list(cfg.point_cloud_range) == list(model.pts_bbox_head.pc_range)


@pytest.mark.parametrize(
    'path', [p for p in FILES if p.stem not in PUBLISHED or 'e2e' in p.stem], ids=lambda p: p.stem
)
def test_dump_is_the_same_config(path, tmp_path):
    cfg = Config.fromfile(path)
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py')._cfg_dict == cfg._cfg_dict


@pytest.mark.parametrize('name', PUBLISHED)
def test_parameters_and_keys(name):
    model, expected = built(name), PARAMETERS[name.split('_')[1]]
    found = sum(p.numel() for p in model.parameters()), len(model.state_dict())
    assert found == expected


@pytest.mark.parametrize('size', ['tiny', 'base'])
def test_state_dict_is_the_originals(size):
    path = REFERENCE / f'state_dict_{size}.json'
    if not path.is_file():
        pytest.skip('no reference files of the original')
    expected = {e['key']: tuple(e['shape']) for e in json.loads(path.read_text())['entries']}
    state = built(f'VAD_{size}_stage_2').state_dict()
    assert {key: tuple(x.shape) for key, x in state.items()} == expected


@pytest.mark.parametrize('size', ['tiny', 'base'])
@pytest.mark.parametrize('stage', WEIGHTS)
def test_losses_of_a_stage(size, stage):
    loss = built(f'VAD_{size}_{stage}').pts_bbox_head.loss
    agents, lines, plan = loss.detection, loss.map, loss.planning
    parts = (
        agents.loss_cls,
        agents.loss_bbox,
        lines.loss_map_cls,
        lines.loss_map_pts,
        plan.loss_plan_reg,
        plan.loss_plan_bound,
        plan.loss_plan_col,
        plan.loss_plan_dir,
    )
    assert tuple(part.loss_weight for part in parts) == WEIGHTS[stage]
    assert agents.loss_traj.loss_weight == agents.loss_traj_cls.loss_weight == 0.2
    assert lines.loss_map_dir.loss_weight == 0.005
    assert lines.loss_map_bbox is None and lines.loss_map_iou is None  # reported as zeros
    assert agents.assigner.cls_cost.weight == agents.loss_cls.loss_weight
    assert agents.assigner.reg_cost.weight == agents.loss_bbox.loss_weight
    assert lines.assigner.cls_cost.weight == lines.loss_map_cls.loss_weight
    assert lines.assigner.pts_cost.weight == lines.loss_map_pts.loss_weight
    for focal in (agents.loss_cls, agents.loss_traj_cls, lines.loss_map_cls):
        assert (focal.use_sigmoid, focal.gamma, focal.alpha) == (True, 2.0, 0.25)
    assert plan.loss_plan_bound.dis_thresh == 1.0 and plan.loss_plan_dir.dis_thresh == 2.0


@pytest.mark.parametrize('size', ['tiny', 'base'])
@pytest.mark.parametrize('stage', EPOCHS)
def test_schedule_of_a_stage(size, stage):
    cfg = load(f'VAD_{size}_{stage}')
    warm_up, cosine = cfg.param_scheduler
    assert cfg.train_cfg.max_epochs == cosine.T_max == cfg.train_cfg.val_interval == EPOCHS[stage]
    assert (cosine.type, cosine.eta_min_ratio, cosine.by_epoch) == ('CosineAnnealingLR', 1e-3, True)
    assert (warm_up.type, warm_up.by_epoch, warm_up.end) == ('LinearLR', False, 500)
    assert warm_up.start_factor == pytest.approx(1 / 3)
    before = f'work_dirs/VAD_{size}_stage_1/latest.pth' if stage == 'stage_2' else None
    assert cfg.load_from == before


@pytest.mark.parametrize('size', ['tiny', 'base'])
def test_stages_differ_in_nothing_else(size):
    whole = load(f'VAD_{size}_e2e')._cfg_dict
    for stage in ('stage_1', 'stage_2'):
        cfg = load(f'VAD_{size}_{stage}')._cfg_dict
        for key in cfg.keys() | whole.keys():
            if key in ('max_epochs', 'train_cfg', 'param_scheduler', 'load_from'):
                continue
            mine, theirs = dict(cfg=cfg[key]), dict(cfg=whole[key])
            if key == 'model':
                mine, theirs = ({**x['cfg'], 'pts_bbox_head': None} for x in (mine, theirs))
                heads = [{**x.model.pts_bbox_head, 'loss': None} for x in (cfg, whole)]
                assert heads[0] == heads[1]
            assert mine == theirs, key


def test_optimizer():
    cfg = load('VAD_tiny_e2e')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert type(wrapper.optimizer).__name__ == 'AdamW'
    assert wrapper.clip_grad_kwargs == dict(max_norm=35, norm_type=2)
    rates = {
        id(p): group['lr'] for group in wrapper.optimizer.param_groups for p in group['params']
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            expected = 2e-5 if name.startswith('img_backbone') else 2e-4
            assert rates[id(parameter)] == pytest.approx(expected), name
    assert {group['weight_decay'] for group in wrapper.optimizer.param_groups} == {0.01}


@pytest.mark.parametrize(
    'size, bev, layers, levels, stages, scale, queue, images',
    [
        ('tiny', 100, 3, 1, (3,), 0.4, 3, (6, 384, 640)),
        ('base', 200, 6, 4, (1, 2, 3), 0.8, 4, (6, 736, 1280)),
    ],
)
def test_sizes(size, bev, layers, levels, stages, scale, queue, images):
    for stage in EPOCHS:
        cfg, model = load(f'VAD_{size}_{stage}'), built(f'VAD_{size}_{stage}')
        head, transformer = model.pts_bbox_head, model.pts_bbox_head.transformer
        assert head.shape == (bev, bev) and transformer.rotate_center == (100, 100)
        assert head.positional_encoding.row_num_embed == bev
        assert head.positional_encoding.col_num_embed == bev
        for part in (transformer.encoder, transformer.decoder, transformer.map_decoder):
            assert len(part.layers) == layers
        cameras = transformer.encoder.layers[0].attentions[1].deformable_attention
        assert (cameras.num_levels, cameras.num_points) == (levels, 8)
        assert model.img_neck.num_outs == levels
        assert tuple(model.img_backbone.out_indices) == stages
        assert model.input_shape == images
        assert cfg.train_dataloader.dataset.queue_length == queue
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            scales = [step.scales for step in loader.dataset.pipeline if 'scales' in step]
            assert scales == [[scale]] and loader.batch_size == 1
        assert head.query_embedding.num_embeddings == 300
        assert (head.map_num_vec, head.map_num_pts_per_vec) == (100, 20)
        assert (head.fut_mode, head.fut_ts, head.ego_fut_mode) == (6, 6, 3)
        assert (head.bbox_coder.max_num, head.map_bbox_coder.max_num) == (100, 50)
        assert (head.map_thresh, head.dis_thresh, head.query_thresh) == (0.5, 0.2, 0.0)


@pytest.mark.parametrize('name', PUBLISHED)
def test_images_are_normalised_in_the_preprocessor(name):
    cfg = load(name)
    prepare = dict(cfg.model.data_preprocessor)
    assert {key: prepare[key] for key in TORCHVISION} == TORCHVISION
    assert prepare['bgr_to_rgb'] is True and prepare['pad_size_divisor'] == 32
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        steps = [step.type for step in loader.dataset.pipeline]
        assert not [step for step in steps if 'Normalize' in step or 'Pad' in step]


def test_only_training_changes_colours():
    cfg = load('VAD_tiny_e2e')
    train, test = (
        [step.type for step in loader.dataset.pipeline]
        for loader in (cfg.train_dataloader, cfg.test_dataloader)
    )
    assert [step for step in train if step not in test] == ['PhotoMetricDistortionMultiViewImage']
    assert cfg.test_dataloader.dataset.test_mode and not cfg.train_dataloader.dataset.get(
        'test_mode'
    )
    assert cfg.test_dataloader.dataset.ann_file.endswith('val.pkl')


def test_first_stage_of_the_backbone_is_frozen():
    model = built('VAD_tiny_stage_2')
    frozen = {n for n, p in model.img_backbone.named_parameters() if not p.requires_grad}
    assert {n.split('.')[0] for n in frozen if '.bn' not in n and 'downsample.1' not in n} == {
        'conv1',
        'bn1',
        'layer1',
    }
    assert model.img_backbone.norm_eval

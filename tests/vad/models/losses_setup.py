"""What the tests of losses, assigners and coders share: configs, samples, formula-made input."""

import importlib.util
import math
import os
from pathlib import Path

import pytest
import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement, InstanceData

import projects.vad.models.assigners
import projects.vad.models.coders
import projects.vad.models.losses  # noqa: F401

REFERENCE = Path(os.environ.get('VAD_REFERENCE') or Path(__file__).parents[4] / 'shared' / 'vad')
needs_reference = pytest.mark.skipif(
    not (REFERENCE / 'losses_tiny.json').is_file(), reason='no reference files of the original'
)

PC_RANGE = [-15.0, -30.0, -2.0, 15.0, 30.0, 2.0]
CODE_WEIGHTS = torch.tensor([1.0] * 8 + [0.2] * 2)
MAP_CODE_WEIGHTS = torch.ones(4)


def focal(weight):
    return dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=weight)


def stage_2(**kwargs):
    """Config of the losses of VAD's second stage."""
    detection = dict(
        assigner=dict(
            type='HungarianAssigner3D',
            cls_cost=dict(type='mmdet.FocalLossCost'),
            reg_cost=dict(type='BBox3DL1Cost'),
        ),
        loss_cls=focal(0.8),
        loss_bbox=dict(type='mmdet.L1Loss', loss_weight=0.1),
        loss_traj=dict(type='mmdet.L1Loss', loss_weight=0.2),
        loss_traj_cls=focal(0.2),
    )
    map_ = dict(
        assigner=dict(
            type='MapHungarianAssigner3D',
            cls_cost=dict(type='mmdet.FocalLossCost'),
            pts_cost=dict(type='OrderedPtsL1Cost'),
        ),
        loss_map_cls=focal(0.8),
        loss_map_pts=dict(type='PtsL1Loss', loss_weight=0.4),
        loss_map_dir=dict(type='PtsDirCosLoss', loss_weight=0.005),
    )
    planning = dict(
        loss_plan_reg=dict(type='mmdet.L1Loss', loss_weight=1.0),
        loss_plan_bound=dict(type='PlanMapBoundLoss', loss_weight=1.0, dis_thresh=1.0),
        loss_plan_col=dict(type='PlanCollisionLoss', loss_weight=1.0),
        loss_plan_dir=dict(type='PlanMapDirectionLoss', loss_weight=0.5),
    )
    parts = dict(detection=detection, map=map_, planning=planning)
    return dict(type='VADLoss', pc_range=PC_RANGE, **parts, **kwargs)


def build(**kwargs):
    return MODELS.build(stage_2(**kwargs))


def sample(boxes, labels, attributes, map_labels, map_boxes, shifted, ego):
    """A data sample with the truths that the losses read."""
    data = Det3DDataSample()
    data.gt_instances_3d = InstanceData(bboxes_3d=boxes, labels_3d=labels, attr_labels=attributes)
    data.gt_map = InstanceData(labels=map_labels, bboxes=map_boxes, shifted_pts=shifted)
    data.gt_ego = BaseDataElement(**ego)
    return data


def det_input():
    """The module of the original's inputs."""
    spec = importlib.util.spec_from_file_location('vad_det_input', REFERENCE / 'det_input.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wave(shape, seed, low=-1.0, high=1.0):
    """Numbers that look random, from a formula that every machine computes alike."""
    n = torch.arange(math.prod(shape), dtype=torch.float64)
    unit = torch.frac((torch.sin(n * 12.9898 + seed * 78.233) * 43.7585).abs() * 97.0)
    return (low + (high - low) * unit).view(shape).float()


def formula_preds(batch=2, queries=40, lines=24, layers=2):
    """The head's output, with a path among agents and lines so that every loss is above 0."""
    box = wave((layers, batch, queries, 10), 1)
    scale = torch.tensor([6.0, 12.0, 0.4, 0.4, 0.5, 0.3, 1.0, 1.0, 3.0, 3.0])
    shift = torch.tensor([0.0, 4.0, 0.7, 1.3, -1.0, 0.5, 0.0, 0.0, 0.0, 0.0])
    trajs = wave((1, batch, queries, 6, 12), 2, -1.5, 1.5).repeat(layers, 1, 1, 1, 1)
    center = wave((layers, batch, lines, 1, 2), 3, 0.35, 0.75)
    reach = wave((layers, batch, lines, 1, 2), 4, -0.2, 0.2)
    points = center + reach * torch.linspace(-1, 1, 20).view(20, 1)
    points = points + wave((layers, batch, lines, 20, 2), 5, -0.004, 0.004)
    lower, upper = points.amin(-2), points.amax(-2)
    return dict(
        bev_embed=None,
        all_cls_scores=wave((layers, batch, queries, 10), 6, -4.0, 1.5),
        all_bbox_preds=box * scale + shift,
        all_traj_preds=trajs,
        all_traj_cls_scores=wave((1, batch, queries, 6), 7, -2, 2).repeat(layers, 1, 1, 1),
        map_all_cls_scores=wave((layers, batch, lines, 3), 8, -3.0, 2.0),
        map_all_bbox_preds=torch.cat([(lower + upper) / 2, upper - lower], -1),
        map_all_pts_preds=points,
        ego_fut_preds=wave((batch, 3, 6, 2), 9) * torch.tensor([0.6, 0.8])
        + torch.tensor([0.1, 2.0]),
    )


def formula_sample(index=0, agents=5, elements=4, orders=19):
    """A sample with this many agents and map elements (0 is valid), the last agent half seen."""
    s = 100 * (index + 1)
    span = torch.tensor([8.0, 16.0, 0.5, 0.3, 1.0, 0.3, 3.0, 4.0, 4.0])
    boxes = wave((agents, 9), s) * span + torch.tensor([0, 4.0, -1.2, 1.8, 4.4, 1.6, 0, 0, 0])
    attributes = torch.zeros(agents, 34)
    attributes[:, :12] = wave((agents, 12), s + 1, -1.5, 1.5)
    attributes[:, 12:18] = 1.0
    attributes[-1:, 15:18] = 0.0
    start, step = wave((elements, 1, 2), s + 2, -8.0, 8.0), wave((elements, 1, 2), s + 3)
    points = start + step * torch.arange(20).view(20, 1)
    shifted = torch.full((elements, orders, 20, 2), -10000.0)
    shifted[:, 0], shifted[:, 1] = points, points.flip(1)
    map_boxes = torch.cat([points.amin(1), points.amax(1)], -1)
    ego = dict(
        fut_trajs=wave((6, 2), s + 4, -0.3, 0.3) + torch.tensor([0.0, 2.0]),
        fut_masks=torch.tensor([1.0, 1, 1, 1, 1, index == 0]),
        fut_cmd=torch.eye(3)[(index + 1) % 3],
    )
    labels, map_labels = torch.arange(agents) * 3 % 10, torch.arange(elements) % 3
    return sample(boxes, labels, attributes, map_labels, map_boxes, shifted, ego)

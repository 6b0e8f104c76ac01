"""Samples with predictions, as MMEngine's evaluator hands them to a metric."""

import numpy as np
import small_tables
import torch
import vad_cases
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import BaseDataElement, InstanceData

LABELS = {
    'vehicle.car': 0,
    'human.pedestrian.adult': 8,
    'movable_object.trafficcone': 9,
    'vehicle.bicycle': 7,
}
META = dict(classes=vad_cases.CLASSES, map_classes=vad_cases.MAP_CLASSES)
LINES = [
    dict(label=0, pts=np.array([[0, -30], [0.5, 30]], np.float32)),
    dict(label=1, pts=np.array([[-5, 5], [5, 5], [5, 8], [-5, 8], [-5, 5]], np.float32)),
]


def tensor(values, shape) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(shape)


def true_boxes(frame: int) -> tuple[torch.Tensor, torch.Tensor]:
    """VAD boxes in the lidar frame, and labels, of what holds points in the hand-written tables."""
    ahead_is_y = np.linalg.inv(small_tables.matrix(small_tables.LIDAR))
    boxes, labels = [], []
    for category, _, (ahead, left), points, speed in small_tables.BOXES:
        if category not in LABELS or not points:
            continue
        x, y, z, _ = ahead_is_y @ [ahead + speed * frame, left, 0.8, 1]
        width, length, height = small_tables.SIZE
        # ahead is +y of this lidar: an angle of pi / 2 from +x
        boxes.append([x, y, z - height / 2, width, length, height, -np.pi, 0, 2 * speed])
        labels.append(LABELS[category])
    return tensor(boxes, (-1, 9)), torch.tensor(labels)


def sample(index: int, predictions: str = 'perfect', noise: float = 0.0, valid=True) -> dict:
    """A sample whose predictions are its ground truth, noisy, or none."""
    made = Det3DDataSample(
        metainfo=dict(
            index=index, sample_idx=f'sample-{index % 2}', fut_valid_flag=valid,
            map_vectors=LINES, lidar2ego=small_tables.matrix(small_tables.LIDAR),
            ego2global=small_tables.matrix(small_tables.EGO),
        )
    )  # fmt: skip
    rng = torch.Generator().manual_seed(index)
    boxes, labels = true_boxes(index % 2)
    n = len(boxes)
    attributes = torch.zeros(n, 34)
    attributes[:, 1:12:2] = boxes[:, 8:9] / 2
    attributes[:, 12:18] = 1
    made.gt_instances_3d = InstanceData(bboxes_3d=boxes, labels_3d=labels, attr_labels=attributes)
    path = tensor([[0.1 * index, 2.0]] * 6, (6, 2)).cumsum(1)
    made.gt_ego = BaseDataElement(
        his_trajs=path[:2] - 0.5,
        fut_trajs=path,
        fut_masks=torch.ones(6) * valid,
        fut_cmd=tensor([0, 1, 0], 3),
    )
    kept = slice(n if predictions == 'perfect' else 0)
    found = boxes[kept] + noise * torch.randn(boxes[kept].shape, generator=rng)
    scores = torch.ones(len(found)) - noise * torch.rand(len(found), generator=rng)
    trajs = attributes[kept, None, :12].repeat(1, 6, 1)
    made.pred_instances_3d = InstanceData(
        bboxes_3d=found, scores_3d=scores, labels_3d=labels[kept], trajs_3d=trajs
    )
    lines = [vad_cases.f32(line['pts']) for line in LINES][kept]
    points = [np.linspace(0, len(p) - 1, 20) for p in lines]
    points = [
        np.stack([np.interp(t, range(len(p)), p[:, i]) for i in range(2)], -1)
        for t, p in zip(points, lines, strict=True)
    ]
    made.pred_map = InstanceData(
        bboxes=torch.zeros(len(lines), 4),
        scores=torch.ones(len(lines)) - noise * torch.rand(len(lines), generator=rng),
        labels=torch.tensor([line['label'] for line in LINES][kept], dtype=torch.long),
        pts=tensor(np.array(points), (-1, 20, 2))
        + 5 * noise * torch.randn(len(lines), 20, 2, generator=rng),
    )
    preds = path.expand(3, 6, 2).clone()
    preds[[0, 2]] += 100
    preds += noise * torch.randn(3, 6, 2, generator=rng)
    made.pred_ego = BaseDataElement(fut_preds=preds)
    return made.to_dict()


def evaluate(metric, samples, **meta) -> dict[str, float]:
    metric.dataset_meta = dict(META, **meta)
    metric.process({}, samples)
    return metric.evaluate(len(samples))

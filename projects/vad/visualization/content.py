"""What there is to draw of one frame: a data sample as plain arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmdet3d.structures import Det3DDataSample

COMMANDS = ('turn right', 'turn left', 'go straight')


@dataclass
class Objects:
    """Boxes, true or predicted.

    Attributes:
        boxes: ``(n, 9)`` VAD boxes.
        names: Class names, n of them.
        scores: ``(n,)`` in [0, 1]; None for the truth.
        paths: For each box its futures, a list of ``(steps + 1, 2)`` points in metres that begin at
            the box; empty where there is none.
        best: Which of its futures is the likeliest, for each box; -1 if nobody said.
    """

    boxes: np.ndarray
    names: list[str]
    scores: np.ndarray | None
    paths: list[list[np.ndarray]]
    best: list[int]


@dataclass
class Line:
    """A map line: its class, its points ``(k, 2)`` in metres, its score (None for the truth)."""

    name: str
    points: np.ndarray
    score: float | None = None


@dataclass
class Content:
    """Everything that is drawn of one frame; what is None or empty isn't.

    Attributes:
        img_paths: Six image files, in the order of the cameras.
        lidar2img: ``(6, 4, 4)``, to pixels of these files.
        lidar2ego: ``(4, 4)``; the road is at height 0 of the ego frame.
        token: The sample's.
        scene: The scene's token.
        command: What the driver wants, in words.
        objects: Predicted ones.
        true_objects: True ones.
        lines: Predicted map.
        true_lines: True map.
        plan: Predicted path ``(steps + 1, 2)`` for the command, from the origin on.
        true_plan: The path that was driven.
    """

    img_paths: list[str]
    lidar2img: np.ndarray
    lidar2ego: np.ndarray
    token: str = ''
    scene: str = ''
    command: str | None = None
    objects: Objects | None = None
    true_objects: Objects | None = None
    lines: list[Line] | None = None
    true_lines: list[Line] | None = None
    plan: np.ndarray | None = None
    true_plan: np.ndarray | None = None

    @property
    def predicted(self) -> bool:
        """Whether a model said anything."""
        return self.objects is not None


def content_of(
    sample: Det3DDataSample, meta: Mapping, score: float = 0.3, map_score: float = 0.4
) -> Content:
    """Content of a data sample, with predictions if it has some.

    Args:
        sample: Of the data set's test mode, or as the model returned it.
        meta: The data set's ``classes`` and ``map_classes``.
        score: Predicted objects scored lower aren't drawn.
        map_score: The same for predicted map lines.
    """
    info, classes, map_classes = sample.metainfo, meta['classes'], meta['map_classes']
    content = Content(
        img_paths=list(info['img_paths']),
        lidar2img=np.asarray(info['ori_lidar2img'], np.float64),
        lidar2ego=np.asarray(info['lidar2ego'], np.float64),
        token=info['sample_idx'],
        scene=info['scene_token'],
    )
    ego = sample.gt_ego if 'gt_ego' in sample else None
    command = int(ego.fut_cmd.argmax()) if ego is not None else COMMANDS.index('go straight')
    if ego is not None:
        steps = int(array(ego.fut_masks).cumprod().sum())
        content.command = COMMANDS[command]
        content.true_plan = path_of(array(ego.fut_trajs)[:steps])
    if 'gt_instances_3d' in sample:
        content.true_objects = true_objects(sample.gt_instances_3d, classes)
    if 'gt_map' in sample:
        content.true_lines = lines_of(sample.gt_map, map_classes)
    if 'pred_instances_3d' in sample:
        content.objects = predicted_objects(sample.pred_instances_3d, classes, score)
    if 'pred_map' in sample:
        content.lines = lines_of(sample.pred_map, map_classes, map_score)
    if 'pred_ego' in sample:
        content.plan = path_of(array(sample.pred_ego.fut_preds)[command])
    return content


def array(values: torch.Tensor | np.ndarray) -> np.ndarray:
    """Values on the CPU, in double precision."""
    return np.asarray(torch.as_tensor(values).detach().cpu(), np.float64)


def path_of(offsets: np.ndarray, start: np.ndarray | float = 0.0) -> np.ndarray:
    """Points ``(steps + 1, 2)`` of offsets from step to step ``(steps, 2)``; the start is first."""
    return np.concatenate([np.zeros((1, 2)), offsets.reshape(-1, 2).cumsum(axis=0)]) + start


def true_objects(instances, classes: Sequence[str]) -> Objects:
    """True objects; a future ends where the track does."""
    boxes, attributes = array(instances.bboxes_3d), array(instances.attr_labels)
    paths = []
    for box, attribute in zip(boxes, attributes, strict=True):
        steps = int(attribute[12:18].cumprod().sum())
        paths.append([path_of(attribute[: 2 * steps], box[:2])] if steps else [])
    names = [classes[label] for label in instances.labels_3d.tolist()]
    return Objects(boxes, names, None, paths, [0] * len(boxes))


def predicted_objects(instances, classes: Sequence[str], score: float) -> Objects:
    """Predicted objects of at least a score, the best first.

    ``mode_scores`` ``(n, modes)`` of the instances, where there are some, tell the likeliest future.
    """
    scores = array(instances.scores_3d)
    kept = np.flatnonzero(scores >= score)
    kept = kept[np.argsort(-scores[kept], kind='stable')]
    boxes, modes = array(instances.bboxes_3d)[kept], array(instances.trajs_3d)[kept]
    paths = [
        [path_of(m, box[:2]) for m in of_box] for of_box, box in zip(modes, boxes, strict=True)
    ]
    best = [-1] * len(kept)
    if 'mode_scores' in instances:
        best = array(instances.mode_scores)[kept].argmax(axis=1).tolist()
    names = [classes[label] for label in instances.labels_3d[kept].tolist()]
    return Objects(boxes, names, scores[kept], paths, best)


def lines_of(instances, classes: Sequence[str], score: float | None = None) -> list[Line]:
    """Map lines; with ``score``, predicted ones of at least that score."""
    points, labels = array(instances.pts), instances.labels.tolist()
    if score is None:
        return [Line(classes[k], p) for k, p in zip(labels, points, strict=True)]
    found = zip(labels, points, instances.scores.tolist(), strict=True)
    return [Line(classes[k], p, s) for k, p, s in found if s >= score]

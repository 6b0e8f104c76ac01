"""What a picture shows, as plain NumPy: the step between data samples and drawing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import BaseDataElement

from ..datasets.infos import CAMERAS
from ..datasets.transforms.load_images import read_image

#: What the three entries of a command stand for.
COMMANDS = ('right', 'left', 'straight')
STEPS = 6


@dataclass
class Objects:
    """Boxes and where they go, in the LiDAR frame.

    Attributes:
        boxes: VAD boxes (n, 9).
        labels: (n,).
        scores: (n,), or None for the truth.
        paths: (n, modes, 1 + steps, 2) in metres, from the centre on; NaN where unknown.
        best: The most likely mode (n,), or None if modes have no scores.
    """

    boxes: np.ndarray
    labels: np.ndarray
    paths: np.ndarray
    scores: np.ndarray | None = None
    best: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass
class Lines:
    """Map lines.

    Attributes:
        points: (m, k, 2) in metres.
        labels: (m,).
    """

    points: np.ndarray
    labels: np.ndarray


@dataclass
class View:
    """One frame, ready to draw. What is None is unknown and is left out.

    Attributes:
        images: Six arrays (H, W, 3), uint8, RGB, in the order of ``CAMERAS``.
        lidar2img: (6, 4, 4), for the pixels of ``images``.
        ground: Height of the ground in the LiDAR frame, metres.
        classes: Names of the objects' labels.
        map_classes: Names of the lines' labels.
        truth: True objects.
        found: Predicted objects.
        true_lines: True map lines.
        found_lines: Predicted map lines.
        true_path: Where the vehicle went, (1 + steps, 2) in metres, from the origin on.
        planned_path: Where it is planned to go.
        command: One of ``COMMANDS``.
        title: What stands above.
    """

    images: Sequence[np.ndarray]
    lidar2img: np.ndarray
    ground: float
    classes: tuple[str, ...]
    map_classes: tuple[str, ...]
    truth: Objects | None = None
    found: Objects | None = None
    true_lines: Lines | None = None
    found_lines: Lines | None = None
    true_path: np.ndarray | None = None
    planned_path: np.ndarray | None = None
    command: str | None = None
    title: str = ''
    cameras: tuple[str, ...] = field(default=CAMERAS)

    @property
    def shown(self) -> Objects | None:
        """The objects drawn into the cameras: predicted ones if there are some, else the truth."""
        return self.truth if self.found is None else self.found


def view_of(
    sample: Det3DDataSample,
    classes: Sequence[str],
    map_classes: Sequence[str],
    score: float = 0.3,
    map_score: float = 0.4,
    title: str = '',
) -> View:
    """A data sample as a view; its images are read from the files that it names.

    Args:
        sample: With ground truth, predictions, or both.
        classes: Names of the objects' labels.
        map_classes: Names of the map lines' labels.
        score: Predicted objects with less are left out.
        map_score: Predicted map lines with less are left out.
        title: What stands above.
    """
    sample = sample.cpu()
    meta = sample.metainfo
    view = View(
        images=[read_image(path)[..., ::-1] for path in meta['img_paths']],
        lidar2img=np.asarray(meta['ori_lidar2img']),
        ground=-float(np.asarray(meta['lidar2ego'])[2, 3]),
        classes=tuple(classes),
        map_classes=tuple(map_classes),
        title=title,
    )
    if 'gt_instances_3d' in sample:
        view.truth = true_objects(sample.gt_instances_3d)
    if 'gt_map' in sample:
        view.true_lines = Lines(numpy(sample.gt_map.pts), numpy(sample.gt_map.labels))
    if 'pred_instances_3d' in sample:
        view.found = found_objects(sample.pred_instances_3d, score)
    if 'pred_map' in sample:
        keep = numpy(sample.pred_map.scores) >= map_score
        pts, labels = (numpy(sample.pred_map[key])[keep] for key in ('pts', 'labels'))
        view.found_lines = Lines(pts, labels)
    add_paths(view, sample)
    return view


def numpy(tensor) -> np.ndarray:
    """A tensor as an array; floats in double precision."""
    array = tensor.detach().numpy()
    return array.astype(np.float64) if array.dtype.kind == 'f' else array


def walk(start: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Positions (..., 1 + steps, 2) from ``start`` (..., 2) on by ``offsets`` (..., steps, 2)."""
    start = np.broadcast_to(start[..., None, :], (*offsets.shape[:-2], 1, 2))
    return np.concatenate([start, start + offsets.cumsum(axis=-2)], axis=-2)


def known(path: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A path (..., 1 + steps, 2) with NaN from the first step on that ``mask`` lacks."""
    lost = np.minimum.accumulate(mask > 0, axis=-1) == 0
    path = path.copy()
    path[..., 1:, :][lost] = np.nan
    return path


def true_objects(truth: BaseDataElement) -> Objects:
    """The truth's boxes with their future, as long as it is known."""
    boxes, attributes = numpy(truth.bboxes_3d), numpy(truth.attr_labels)
    offsets = attributes[:, : 2 * STEPS].reshape(-1, STEPS, 2)
    paths = known(walk(boxes[:, :2], offsets), attributes[:, 2 * STEPS : 3 * STEPS])
    return Objects(boxes, numpy(truth.labels_3d), paths[:, None])


def found_objects(found: BaseDataElement, score: float) -> Objects:
    """Predictions of at least ``score``, the best first; ``mode_scores`` tell the best motion."""
    scores = numpy(found.scores_3d)
    order = np.argsort(-scores, kind='stable')
    order = order[scores[order] >= score]
    boxes, trajectories = numpy(found.bboxes_3d)[order], numpy(found.trajs_3d)[order]
    offsets = trajectories.reshape(*trajectories.shape[:2], trajectories.shape[-1] // 2, 2)
    best = None
    if 'mode_scores' in found:
        best = numpy(found.mode_scores)[order].argmax(axis=-1)
    paths = walk(boxes[:, None, :2], offsets)
    return Objects(boxes, numpy(found.labels_3d)[order], paths, scores[order], best)


def add_paths(view: View, sample: Det3DDataSample) -> None:
    """The vehicle's own true path, and the path planned for the command that was given."""
    if 'gt_ego' not in sample:
        return
    ego, origin = sample.gt_ego, np.zeros(2)
    path = known(walk(origin, numpy(ego.fut_trajs)), numpy(ego.fut_masks))
    if np.isfinite(path[1:]).any():
        view.true_path = path
    command = int(numpy(ego.fut_cmd).argmax())
    view.command = COMMANDS[command]
    if 'pred_ego' in sample:
        view.planned_path = walk(origin, numpy(sample.pred_ego.fut_preds)[command])

"""nuScenes as VAD sees it: queues of frames, with the last frame's ground truth."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from projects.prune_plugin.common.errors import DataNotFoundError, UserError

from .frames import ego_truth, image_path, make_frame, object_truth, relative_can_bus
from .infos import load_infos
from .vector_map import MAP_CLASSES, MapProvider, build_map_targets

CLASSES = (
    'car',
    'truck',
    'construction_vehicle',
    'bus',
    'trailer',
    'barrier',
    'motorcycle',
    'bicycle',
    'pedestrian',
    'traffic_cone',
)
UNUSED = ('sweeps',)


@DATASETS.register_module()
class VADNuScenesDataset(BaseDataset):
    """Frames of a ``vad_nuscenes_infos_temporal_*.pkl`` file, in order of time.

    The pipeline gets one frame at a time, as ``frames.make_frame`` describes it, and ends with
    ``PackVADInputs``. In training, items are queues: of the ``queue_length`` frames before the
    wanted one, one is dropped at random, and a frame of another scene gives way to a copy of the
    next newer frame. Only the last frame has ground truth. An item without objects or map lines is
    replaced by another, drawn at random. In testing, items are single frames.

    All that is random is drawn from NumPy's global state, so that seeding it settles an epoch.

    Args:
        ann_file: The info file, relative to ``data_root`` or absolute.
        data_root: The folder with ``samples/`` and, for info files of the original project,
            ``maps/``.
        pipeline: Transforms of one frame.
        queue_length: Frames in a training item, the current one included.
        classes: Names of the objects, in the order of their labels.
        map_classes: Names of the map lines, in the order of their labels.
        point_cloud_range: x, y, z minimum, then maximum, in metres of the LiDAR frame.
        use_valid_flag: Whether objects count as seen by ``valid_flag``, else by their LiDAR points;
            by default the former in training and the latter in testing.
        filter_empty_gt: Whether training replaces items without objects or map lines.
        num_map_points: Points per map line.
        metainfo: More meta information.
        kwargs: ``test_mode``, ``indices``, ``serialize_data``, ``lazy_init`` and so on of MMEngine.

    Raises:
        DataNotFoundError: The info file or the images aren't where they should be.
        UserError: Bad arguments, or an info file without what is needed.

    Example::

        dataset=dict(
            type='VADNuScenesDataset', data_root='data/nuscenes', queue_length=3,
            ann_file='vad_nuscenes_infos_temporal_train.pkl', pipeline=train_pipeline)
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str,
        pipeline: Sequence[dict],
        queue_length: int = 3,
        classes: Sequence[str] = CLASSES,
        map_classes: Sequence[str] = MAP_CLASSES,
        point_cloud_range: Sequence[float] = (-15.0, -30.0, -2.0, 15.0, 30.0, 2.0),
        use_valid_flag: bool | None = None,
        filter_empty_gt: bool = True,
        num_map_points: int = 20,
        metainfo: Mapping | None = None,
        **kwargs,
    ) -> None:
        if not isinstance(queue_length, int) or queue_length < 1:
            raise UserError(
                f'dataset.queue_length={queue_length!r} must be an integer of at least 1'
            )
        unknown = [name for name in map_classes if name not in MAP_CLASSES]
        if unknown:
            raise UserError(
                f'dataset.map_classes has {unknown[0]!r}; {", ".join(MAP_CLASSES)} are valid'
            )
        self.queue_length = queue_length
        self.use_valid_flag = use_valid_flag
        self.filter_empty_gt = filter_empty_gt
        self.num_map_points = num_map_points
        low, high = np.asarray(point_cloud_range, float).reshape(2, 3)
        self.patch = float(high[1] - low[1]), float(high[0] - low[0])
        self._maps = MapProvider(data_root, self.patch)
        metainfo = dict(metainfo or {}, classes=tuple(classes), map_classes=tuple(map_classes))
        super().__init__(
            ann_file=str(ann_file),
            data_root=str(data_root),
            pipeline=list(pipeline),
            metainfo=metainfo,
            **kwargs,
        )
        if self.use_valid_flag is None:
            self.use_valid_flag = not self.test_mode

    def load_data_list(self) -> list[dict]:
        """The records of the info file, by time stamp."""
        content = load_infos(self.ann_file)
        infos = sorted(content['infos'], key=lambda info: info['timestamp'])
        if not infos:
            raise UserError(f'{self.ann_file!r} has no records')
        if self.pipeline.transforms:
            self._check_images(infos[0])
        self._metainfo.update(version=content['metadata']['version'], data_root=self.data_root)
        return [{k: v for k, v in info.items() if k not in UNUSED} for info in infos]

    def _check_images(self, info: dict) -> None:
        """Missing images shall show before a training or an evaluation has begun."""
        path = image_path(next(iter(info['cams'].values()))['data_path'], self.data_root)
        if not Path(path).is_file():
            raise DataNotFoundError(
                f'dataset.data_root={self.data_root!r} lacks the image {path!r} that '
                f'{self.ann_file!r} names'
            )

    @property
    def scene_tokens(self) -> list[str]:
        """The scene of every item; no image is loaded."""
        return [self.get_data_info(index)['scene_token'] for index in range(len(self))]

    def prepare_data(self, idx: int) -> dict | None:
        """The item at ``idx``; None if training has no use for it."""
        info = self.get_data_info(idx)
        frame = {**make_frame(info, idx, self.data_root), **self.get_truth(info)}
        strict = self.filter_empty_gt and not self.test_mode
        if strict and not len(frame['gt_map']['labels']):
            return None
        current = self.pipeline(frame)
        if self.test_mode:
            return current
        if strict and not len(current['data_samples'].gt_instances_3d):
            return None
        return join_queue(self._earlier(idx, info, current) + [current])

    def _earlier(self, idx: int, info: dict, current: dict) -> list[dict]:
        """The ``queue_length - 1`` packed frames before the current one, oldest first."""
        queue: list[dict] = []
        for position in earlier_positions(idx, self.queue_length):
            other = self.get_data_info(position)
            same_scene = other['scene_token'] == info['scene_token']
            if same_scene and other['frame_idx'] < info['frame_idx']:
                info = other
                current = self.pipeline(make_frame(info, position, self.data_root))
            queue.insert(0, current)
        return queue

    def get_truth(self, info: dict) -> dict:
        """Ground truth of one record, before any filter.

        Returns:
            ``gt_bboxes_3d``, ``gt_labels_3d``, ``attr_labels`` as ``frames.object_truth`` has them,
            ``gt_ego`` (see ``frames.ego_truth``), ``gt_map`` (see ``vector_map``) and, for
            evaluation, the map lines' own vertices as ``map_vectors``.
        """
        truth = object_truth(info, self._metainfo['classes'], self.use_valid_flag)
        vectors = self._map_vectors(info)
        rng = None if self.test_mode else np.random.default_rng(np.random.randint(2**31))
        lines = build_map_targets(vectors, self.patch, self.num_map_points, pattern='v2', rng=rng)
        truth = {**truth, 'gt_ego': ego_truth(info), 'gt_map': lines}
        return {**truth, 'map_vectors': vectors} if self.test_mode else truth

    def _map_vectors(self, info: dict) -> list[dict]:
        """Map lines of one record: ``label`` and vertices ``pts (k, 2)`` in metres."""
        names = self._metainfo['map_classes']
        labels = {MAP_CLASSES.index(name): label for label, name in enumerate(names)}
        return [
            dict(vector, label=labels[vector['label']])
            for vector in self._maps.of_info(info)
            if vector['label'] in labels
        ]


def earlier_positions(index: int, queue_length: int) -> list[int]:
    """Positions of the earlier frames of a queue, newest first: all but one, drawn at random.

    Positions before the first are 0; such a frame is no older than the next and thus not taken.
    """
    positions = np.arange(index - queue_length, index)
    kept = np.delete(positions, np.random.randint(queue_length))
    return np.maximum(kept[::-1], 0).tolist()


def join_queue(items: Sequence[dict]) -> dict:
    """One training item of packed frames, oldest first, with the sample of the last.

    Images become ``(T, N, 3, H, W)``; the CAN bus values become differences.
    """
    frames = [dict(item['data_samples'].frames[0]) for item in items]
    can_bus = relative_can_bus([frame['can_bus'] for frame in frames])
    for frame, values in zip(frames, can_bus, strict=True):
        frame['can_bus'] = values
    sample = items[-1]['data_samples'].clone()
    sample.set_metainfo(dict(frames=frames))
    return dict(
        inputs=dict(img=torch.cat([item['inputs']['img'] for item in items])), data_samples=sample
    )

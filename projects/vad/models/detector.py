"""The VAD model: images in, boxes, map, trajectories and a plan out."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

from projects.prune_plugin.common.errors import UserError

from .dummy import dummy_inputs
from .grid_mask import GridMask
from .losses.vad_loss import task_of
from .published import NORM, check_norm, without_foreign


@dataclass
class Memory:
    """What test mode remembers of the previous frame.

    Attributes:
        scene_token: Its scene.
        timestamp: When it was taken, in seconds; None if unknown.
        bev: Its BEV features ``(1, h * w, embed_dims)``.
        position: The ego's global position.
        angle: The ego's yaw in degrees.
    """

    scene_token: str
    timestamp: float | None
    bev: Tensor
    position: np.ndarray
    angle: float

    def precedes(self, frame: dict[str, Any]) -> bool:
        """Whether ``frame`` is a later one of the same scene."""
        now = frame.get('timestamp')
        ordered = now is None or self.timestamp is None or now > self.timestamp
        return ordered and frame['scene_token'] == self.scene_token


@MODELS.register_module()
class VAD(BaseModel):
    """Vectorized Autonomous Driving (https://arxiv.org/abs/2303.12077).

    In training the BEV of a queue's earlier frames is computed first, without gradients. In test
    mode frames come one by one, in order; the BEV is kept from frame to frame and dropped where
    another scene begins, where time runs backwards, and by :meth:`reset`.

    Args:
        img_backbone: Config of the image backbone.
        img_neck: Config of the neck; its outputs are the feature levels.
        pts_bbox_head: Config of the head.
        use_grid_mask: Mask the current frame's images while training.
        video_test_mode: Keep the BEV from frame to frame in test mode.
        data_preprocessor: Config of the batch preparation.
        input_shape: Cameras, height and width of an example input (for FLOPs and latency).
        auxiliary: Configs of heads that add losses in training and are not part of the finished
            model (see ``projects.vad.models.auxiliary``).
        init_cfg: See MMEngine.
    """

    #: Frames come one at a time.
    profile_batch_size = 1
    #: What a pruned model copies from the dense one unless ``recovery.distill.targets`` says more.
    distill_targets = (
        dict(module='pts_bbox_head.transformer.encoder', name='bev', loss='mse', weight=1.0),
        dict(
            module='pts_bbox_head',
            key='all_cls_scores',
            loss='bce',
            weight=50.0,
            align=dict(dim=2, group='pts_bbox_head.query_embedding'),
        ),
        dict(
            module='pts_bbox_head',
            key='map_all_cls_scores',
            loss='bce',
            weight=10.0,
            align=dict(dim=2, group='pts_bbox_head.map_instance_embedding'),
        ),
        dict(module='pts_bbox_head', key='ego_fut_preds', loss='l1', weight=1.0),
    )
    #: The teacher gets the student's masked images.
    distill_shared = ('grid_mask',)

    def __init__(
        self,
        img_backbone: dict,
        img_neck: dict,
        pts_bbox_head: dict,
        use_grid_mask: bool = True,
        video_test_mode: bool = True,
        data_preprocessor: dict | None = None,
        input_shape: Sequence[int] = (6, 384, 640),
        auxiliary: Sequence[dict] = (),
        init_cfg: dict | None = None,
    ):
        super().__init__(data_preprocessor, init_cfg)
        self.pts_bbox_head = MODELS.build(pts_bbox_head)
        self.img_backbone = MODELS.build(img_backbone)
        self.img_neck = MODELS.build(img_neck)
        self.auxiliary = nn.ModuleList([MODELS.build(config) for config in auxiliary])
        self.grid_mask = GridMask() if use_grid_mask else None
        self.video_test_mode = video_test_mode
        self.input_shape = tuple(input_shape)
        self.memory: Memory | None = None

    def reset(self) -> None:
        """Forget the previous frame."""
        self.memory = None

    def train(self, mode: bool = True) -> 'VAD':
        """Switch to training or test mode and forget the previous frame."""
        self.reset()
        return super().train(mode)

    @staticmethod
    def loss_task(name: str) -> str:
        """The task a loss belongs to: what ``calibration.loss_weights`` goes by."""
        return task_of(name)

    def img_norm(self) -> dict[str, Any] | None:
        """How images are normalised, ``mean``, ``std`` and ``bgr_to_rgb``; None if they aren't."""
        prepare = self.data_preprocessor
        if not getattr(prepare, 'normalize', False):
            return None
        values = {
            k: [round(x, 4) for x in getattr(prepare, k).flatten().tolist()]
            for k in ('mean', 'std')
        }
        return {**values, 'bgr_to_rgb': prepare.bgr_to_rgb}

    def checkpoint_meta(self) -> dict[str, Any]:
        """What is kept beside the weights: the normalisation of images they were trained with."""
        norm = self.img_norm()
        return {} if norm is None else {NORM: norm}

    def adapt_checkpoint(self, checkpoint: Mapping, path: str | os.PathLike) -> dict[str, Any]:
        """A checkpoint without foreign tensors.

        Raises:
            UserError: it was trained on images normalised otherwise.
        """
        check_norm(checkpoint.get('meta') or {}, self.img_norm(), path)
        return {**checkpoint, 'state_dict': without_foreign(checkpoint['state_dict'])}

    def dummy_inputs(self, batch_size: int = 1) -> dict[str, Any]:
        """Arguments of ``forward``: grey images of a made-up rig, without a history."""
        return dummy_inputs(batch_size, self.input_shape)

    def export_view(self) -> nn.Module:
        """One frame as a function of tensors, for other programs: see :mod:`projects.vad.export`."""
        from ..export import FrameGraph

        return FrameGraph(self)

    def extract_feat(self, images: Tensor, masked: bool = False) -> list[Tensor]:
        """Feature levels ``(B, cameras, C, h, w)`` of images ``(B, cameras, 3, H, W)``."""
        flat = images.flatten(0, 1)
        if masked and self.grid_mask is not None:
            flat = self.grid_mask(flat)
        if flat.device.type == 'cpu' and not torch.is_grad_enabled():
            # Faster there; but with gradients oneDNN writes out of bounds for thin convolutions.
            flat = flat.contiguous(memory_format=torch.channels_last)
        levels = self.img_neck(self.img_backbone(flat))
        return [level.unflatten(0, images.shape[:2]) for level in levels]

    def forward(
        self,
        inputs: dict[str, Tensor],
        data_samples: Sequence[Det3DDataSample],
        mode: str = 'tensor',
    ) -> Any:
        """Losses, predictions or the head's raw output.

        Args:
            inputs: ``img`` ``(B, T, cameras, 3, H, W)``, normalised; T frames, oldest first.
            data_samples: One per sample; ``frames`` in their metainfo describes the T frames, and
                ground truth is needed for 'loss'.
            mode: 'loss', 'predict' or 'tensor'.

        Returns:
            A dict of losses; the data samples with predictions; or the dict of
            :meth:`VADHead.forward` with ``bev_embed`` ``(h * w, B, embed_dims)``, one frame after
            the other as in 'predict'.

        Raises:
            UserError: ``mode`` is another word.
        """
        if mode == 'loss':
            return self.losses(inputs['img'], data_samples)
        if mode == 'predict':
            outs = self.test_outputs(inputs['img'], data_samples)
            return self.add_predictions(outs, data_samples)
        if mode == 'tensor':
            return self.test_outputs(inputs['img'], data_samples)
        raise UserError(f"mode='{mode}' is unknown; valid are 'loss', 'predict' and 'tensor'")

    def losses(self, images: Tensor, data_samples: Sequence[Det3DDataSample]) -> dict[str, Tensor]:
        """Losses of the queues' last frames."""
        frames = [sample.metainfo['frames'] for sample in data_samples]
        previous = self.history(images[:, :-1], frames) if images.shape[1] > 1 else None
        features = self.extract_feat(images[:, -1], masked=True)
        head = self.pts_bbox_head
        bev = head.encode(features, [queue[-1] for queue in frames], previous)
        outs = head(bev, ego_history(data_samples))
        losses = head.loss(outs, data_samples, head.code_weights, head.map_code_weights)
        for helper in self.auxiliary:
            losses |= helper(bev, data_samples, head)
        return losses

    @torch.no_grad()
    def history(self, images: Tensor, frames: Sequence[Sequence[dict]]) -> Tensor:
        """BEV features of the last of ``(B, T, cameras, 3, H, W)``, in evaluation mode."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        batch, length = images.shape[:2]
        levels = [x.unflatten(0, (batch, length)) for x in self.extract_feat(images.flatten(0, 1))]
        bev = None
        for i in range(length):
            features = [level[:, i] for level in levels]
            bev = self.pts_bbox_head.encode(features, [queue[i] for queue in frames], bev)
        for module, training in modes:
            module.training = training
        return bev

    def test_outputs(
        self, images: Tensor, data_samples: Sequence[Det3DDataSample]
    ) -> dict[str, Tensor]:
        """The head's output for the current frames, each sample continuing the one before it."""
        features = self.extract_feat(images[:, -1])
        bevs = []
        for i, sample in enumerate(data_samples):
            frame = sample.metainfo['frames'][-1]
            bevs.append(self.remembered([level[i : i + 1] for level in features], frame))
        bev = torch.cat(bevs)
        outs = self.pts_bbox_head(bev, ego_history(data_samples))
        return dict(bev_embed=bev.transpose(0, 1), **outs)

    def remembered(self, features: Sequence[Tensor], frame: dict[str, Any]) -> Tensor:
        """BEV features of one frame, with the previous frame's if it belongs to the same scene."""
        memory = self.memory if self.video_test_mode else None
        if memory is not None and not memory.precedes(frame):
            memory = None
        can_bus = np.array(frame['can_bus'], dtype=np.float64)
        position, angle = can_bus[:3].copy(), float(can_bus[-1])
        can_bus[:3] = 0 if memory is None else position - memory.position
        can_bus[-1] = 0 if memory is None else angle - memory.angle
        previous = None if memory is None else memory.bev
        bev = self.pts_bbox_head.encode(features, [{**frame, 'can_bus': can_bus}], previous)
        if self.video_test_mode:
            token, time = frame['scene_token'], frame.get('timestamp')
            self.memory = Memory(token, time, bev.detach(), position, angle)
        return bev

    def add_predictions(
        self, outs: dict[str, Tensor], data_samples: Sequence[Det3DDataSample]
    ) -> Sequence[Det3DDataSample]:
        """The data samples with ``pred_instances_3d``, ``pred_map`` and ``pred_ego``."""
        for i, (sample, found) in enumerate(
            zip(data_samples, self.pts_bbox_head.decode(outs), strict=True)
        ):
            objects, lines = found['objects'], found['lines']
            sample.pred_instances_3d = InstanceData(
                bboxes_3d=objects['bboxes'],
                scores_3d=objects['scores'],
                labels_3d=objects['labels'],
                trajs_3d=objects['trajs'],
                mode_scores=objects['mode_scores'],
            )
            sample.pred_map = InstanceData(**lines)
            sample.pred_ego = BaseDataElement(fut_preds=outs['ego_fut_preds'][i].float())
        return data_samples


def ego_history(data_samples: Sequence[Det3DDataSample]) -> Tensor | None:
    """The egos' last offsets ``(B, steps, 2)``, if the samples have them."""
    if not all('gt_ego' in s and 'his_trajs' in s.gt_ego for s in data_samples):
        return None
    return torch.stack([sample.gt_ego.his_trajs for sample in data_samples])

"""The likeliest motion of an object is the head's, found again by its trajectories."""

import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import InstanceData
from torch import nn

from projects.vad.visualization.motion_scores import add_mode_scores, listening


def outputs(queries: int = 5, modes: int = 3) -> dict[str, torch.Tensor]:
    """A head's raw output: two layers, one sample."""
    return dict(
        all_traj_preds=torch.randn(2, 1, queries, modes, 12),
        all_traj_cls_scores=torch.randn(2, 1, queries, modes),
    )


class Model(nn.Module):
    """Something with a head."""

    def __init__(self):
        super().__init__()
        self.pts_bbox_head = nn.Identity()

    def forward(self, outs):
        return self.pts_bbox_head(outs)


def test_objects_get_the_scores_of_their_queries():
    outs, order = outputs(), torch.tensor([3, 0, 3])
    found = InstanceData(trajs_3d=outs['all_traj_preds'][-1, 0, order])
    add_mode_scores([Det3DDataSample(pred_instances_3d=found)], outs)
    torch.testing.assert_close(found.mode_scores, outs['all_traj_cls_scores'][-1, 0, order])


def test_nothing_found_gets_no_scores():
    found = InstanceData(trajs_3d=torch.zeros(0, 3, 12))
    add_mode_scores([Det3DDataSample(pred_instances_3d=found)], outputs())
    assert found.mode_scores.shape == (0, 3)


def test_the_head_is_heard_while_one_listens():
    model, outs = Model(), outputs()
    with listening(model) as heard:
        model(outs)
    model(outs)
    assert len(heard) == 1 and heard[0] is outs

"""Layers of networks of point clouds: known by name, as their operations run on GPUs alone."""

import copy

import pytest
import torch

pytest.importorskip('mmdet3d')

from mmdet3d.models.dense_heads.base_conv_bbox_head import BaseConvBboxHead  # noqa: E402
from mmdet3d.models.layers import VoteModule  # noqa: E402
from mmdet3d.models.layers.dgcnn_modules import DGCNNFAModule  # noqa: E402
from mmdet3d.models.layers.pointnet_modules import PointFPModule, PointSAModule  # noqa: E402
from torch import nn  # noqa: E402

from projects.prune_plugin import build_pruner, mask, slim  # noqa: E402

HALF = dict(allocator=dict(type='Uniform'), budget=dict(type='units', ratio=0.5))


class Holder(nn.Module):
    """The module under a name."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner


def built(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for name, tensor in module.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            tensor.data = (
                torch.rand_like(tensor) if 'running_var' in name else torch.randn_like(tensor) / 3
            )
    return Holder(module).eval()


POINTS, ONE = torch.randn(2, 20, 3), dict(num_classes=0)
CASES = {
    'abstraction': (
        lambda: PointSAModule(num_point=4, radius=0.3, num_sample=4, mlp_channels=[5, 8, 12, 16]),
        lambda m: m.mlps[0](torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))),
        [8, 12],
    ),
    'propagation': (
        lambda: PointFPModule(mlp_channels=[10, 12, 8]),
        lambda m: m.mlps(torch.randn(2, 10, 4, 1, generator=torch.Generator().manual_seed(0))),
        [12],
    ),
    'aggregation': (
        lambda: DGCNNFAModule(mlp_channels=[10, 12, 8]),
        lambda m: m.mlps(torch.randn(2, 10, 4, generator=torch.Generator().manual_seed(0))),
        [12],
    ),
    'votes': (
        lambda: VoteModule(in_channels=16, vote_per_seed=1, conv_channels=(16, 12)),
        lambda m: m(POINTS, torch.randn(2, 16, 20, generator=torch.Generator().manual_seed(0)))[1],
        [16, 12],
    ),
    'boxes': (
        lambda: BaseConvBboxHead(
            in_channels=16, shared_conv_channels=(12, 10), cls_conv_channels=(8,), num_cls_out_channels=4,
            reg_conv_channels=(6, 6), num_reg_out_channels=7,
        ),
        lambda m: torch.cat(m(torch.randn(2, 16, 20, generator=torch.Generator().manual_seed(0))), 1),
        [8, 6, 6, 12, 10],
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', CASES)
def test_slim_equals_masked(name):
    build, run, sizes = CASES[name]
    model = built(build())
    plan = build_pruner(dict(HALF, units=[dict(type='StackedChannels')])).plan(model)
    assert sorted(group.size for group in plan.groups) == sorted(sizes)
    slimmed, masked = slim(copy.deepcopy(model), plan.state), mask(copy.deepcopy(model), plan.state)
    with torch.no_grad():
        ours, theirs, dense = (run(m.inner) for m in (slimmed, masked, model))
    assert ours.shape == dense.shape
    assert float((ours - theirs).abs().max()) < 1e-5 * float(theirs.abs().max())
    assert float((ours - dense).abs().max()) > 1e-3

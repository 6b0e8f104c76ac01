"""What only a GPU can show of VAD; see ``test_real_gpu.py``."""

import pytest
import torch
from test_real_gpu import on_both, pytestmark  # noqa: F401
from torch import Tensor


@pytest.mark.parametrize('gradients', [False, True])
def test_the_operator_of_mmcv_is_ours(gradients):
    """Values, and gradients of all three inputs, against PyTorch alone."""
    pytest.importorskip('mmcv.ops')
    from projects.vad.models.attention import sampling

    if not sampling.has_operator('cuda'):
        pytest.skip('mmcv was built without CUDA')
    torch.manual_seed(0)
    shapes = [(8, 6), (4, 3)]
    tensors = [torch.randn(2, 60, 4, 8), torch.rand(2, 5, 4, 2, 4, 2), torch.rand(2, 5, 4, 2, 4)]

    def run(device: str) -> list[Tensor]:
        inputs = [x.clone().to(device).requires_grad_(gradients) for x in tensors]
        with torch.set_grad_enabled(gradients):
            out = sampling.deformable_sampling(inputs[0], shapes, inputs[1], inputs[2])
        if gradients:
            out.square().sum().backward()
        return [out, *(x.grad for x in inputs if gradients)]

    for expected, found in zip(*on_both(run), strict=True):
        assert torch.allclose(found.detach().cpu(), expected.detach(), 1e-3, 1e-3)


def test_a_warm_pass_of_vad_waits_for_nothing():
    pytest.importorskip('mmdet3d')
    import tiny_vad

    model = tiny_vad.build().cuda()
    x = tiny_vad.images().cuda()
    samples = [tiny_vad.sample([tiny_vad.frame(i, lidar2img=tiny_vad.rig())]) for i in range(4)]
    from mmengine.structures import BaseDataElement

    for sample in samples:
        sample.gt_ego = BaseDataElement(his_trajs=torch.zeros(2, 2)).to('cuda')
    with torch.no_grad():
        for sample in samples[:3]:
            model(dict(img=x), [sample], mode='tensor')
        torch.cuda.set_sync_debug_mode('error')
        try:
            model(dict(img=x), samples[3:], mode='tensor')
        finally:
            torch.cuda.set_sync_debug_mode('default')

"""Compare a VAD config with what the original project computes from the same weights and inputs.

Weights and inputs are formulas: DIR holds ``det_fill.py`` (``det_fill(model)``) and
``det_input.py`` (``image``, ``img_meta``, ``can_bus_rel``, ``gt_agents``, ``gt_map``, ``ego``). The
reference is a file of the original's outputs. Exits with 1 where a tensor or a loss differs by more
than the tolerance.
"""

import hashlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tools')]

from arguments import Parser, add_common_arguments, check_inputs  # noqa: E402

from projects.prune_plugin.common.errors import UserError  # noqa: E402
from projects.prune_plugin.workflows import cli  # noqa: E402

#: Outputs of the head that are compared as they are.
OUTPUTS = (
    'all_cls_scores',
    'all_bbox_preds',
    'all_traj_cls_scores',
    'map_all_cls_scores',
    'map_all_bbox_preds',
    'map_all_pts_preds',
    'ego_fut_preds',
)
#: Decoded rows are matched by label and values, since ties make their order arbitrary.
DECODED = {
    'objects': ('bboxes_bottom_center', 'scores', 'labels', 'trajs'),
    'map': ('map_bboxes_xyxy', 'map_scores', 'map_labels', 'map_pts'),
}


class Comparison:
    """Differences, printed as they are found.

    Args:
        atol: Largest absolute difference of tensors.
        rtol: Largest relative difference of losses.
    """

    def __init__(self, atol: float, rtol: float):
        self.atol, self.rtol = atol, rtol
        self.failed: list[str] = []

    def tensor(self, name: str, ours: Any, theirs: Any) -> None:
        """Compare two arrays of numbers."""
        ours, theirs = (torch.as_tensor(x).detach().cpu().double() for x in (ours, theirs))
        if ours.shape != theirs.shape:
            self.verdict(name, f'shape {tuple(ours.shape)} for {tuple(theirs.shape)}', False)
            return
        difference = float((ours - theirs).abs().max()) if ours.numel() else 0.0
        spread = float(theirs.std()) if theirs.numel() > 1 else 0.0
        text = f'max |diff| {difference:.3e}   reference std {spread:.3g}'
        self.verdict(name, text, difference <= self.atol)

    def loss(self, name: str, ours: float, theirs: float) -> None:
        """Compare two numbers relatively."""
        difference = abs(ours - theirs) / max(abs(theirs), 1e-6)
        text = f'{ours:.6g} for {theirs:.6g}   relative {difference:.1e}'
        self.verdict(name, text, difference <= self.rtol)

    def verdict(self, name: str, text: str, good: bool) -> None:
        """Print a line and remember a failure."""
        print(f'{"  " if good else "! "}{name:34s} {text}')
        if not good:
            self.failed.append(name)


def load_module(folder: Path, name: str) -> ModuleType:
    """``folder/name.py`` as a module."""
    path = folder / f'{name}.py'
    if not path.is_file():
        raise UserError(f'--det {folder} holds no {name}.py')
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(cfg: Any, det: SimpleNamespace) -> nn.Module:
    """The config's model with formula-made weights, taking images as they are."""
    from mmengine.registry import MODELS, init_default_scope

    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    cfg.model.data_preprocessor = dict(type='VADDataPreprocessor', pad_size_divisor=1)
    cfg.model.img_backbone.init_cfg = None
    model = MODELS.build(cfg.model).eval()
    det.fill.det_fill(model)
    return model


def digest(model: nn.Module) -> str:
    """SHA-256 over the state dict's names and bytes, in its order."""
    total = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        total.update(name.encode())
        total.update(tensor.numpy().tobytes())
    return total.hexdigest()


def frame_meta(det: SimpleNamespace, frame: int, size: tuple[int, int], can_bus=None) -> dict:
    """A frame as the dataset describes it; ``can_bus`` is absolute if None."""
    meta = det.input.img_meta(frame, *size, can_bus=can_bus)
    return dict(
        can_bus=np.array(meta['can_bus'], dtype=np.float64),
        lidar2img=np.stack(meta['lidar2img']),
        img_shape=size,
        scene_token=meta['scene_token'],
        sample_idx=meta['sample_idx'],
        timestamp=None,
    )


def sample_points(tensor: Tensor, count: int) -> Tensor:
    """``count`` evenly spaced entries, as the reference files sample large tensors."""
    flat = tensor.reshape(-1)
    count = min(count, flat.numel())
    return flat[torch.arange(count) * (flat.numel() - 1) // max(count - 1, 1)]


@torch.no_grad()
def run_frame(model: nn.Module, det: SimpleNamespace, frame: int, size: tuple[int, int]) -> dict:
    """One frame through ``model.test_step``: raw outputs, features and predictions."""
    from mmdet3d.structures import Det3DDataSample

    seen: dict[str, Any] = {}
    head = model.pts_bbox_head
    hooks = [
        head.register_forward_hook(
            lambda _, args, outs: seen.update(outs, bev_embed=args[0].transpose(0, 1))
        ),
        model.img_neck.register_forward_hook(lambda _, args, outs: seen.update(fpn=outs)),
    ]
    sample = Det3DDataSample(metainfo=dict(frames=[frame_meta(det, frame, size)]))
    images = det.input.image(frame, *size)[None]
    result = model.test_step(dict(inputs=dict(img=[images]), data_samples=[sample]))[0]
    for hook in hooks:
        hook.remove()
    return dict(seen, result=result)


def decoded(result: Any) -> dict[str, Tensor]:
    """Predictions of a sample under the names of the reference files."""
    objects, lines = result.pred_instances_3d, result.pred_map
    return dict(
        bboxes_bottom_center=objects.bboxes_3d,
        scores=objects.scores_3d,
        labels=objects.labels_3d,
        trajs=objects.trajs_3d,
        map_bboxes_xyxy=lines.bboxes,
        map_scores=lines.scores,
        map_labels=lines.labels,
        map_pts=lines.pts,
    )


def unmatched(ours: Sequence[Tensor], theirs: Sequence[Tensor], atol: float) -> int:
    """Rows of ``theirs`` that no row of ``ours`` equals, other than those that tie with the last.

    Args:
        ours: Boxes, scores, labels and points of the rows.
        theirs: The same.
        atol: Largest difference.
    """
    if not len(ours[0]) or not len(theirs[0]):
        return len(theirs[0])
    a, b = (
        torch.cat([x.flatten(1) if x.dim() > 1 else x[:, None] for x in rows], 1).double()
        for rows in (ours, theirs)
    )
    far = torch.cdist(b, a, p=float('inf')).amin(1) > atol
    sure = theirs[1] > theirs[1].min() + atol
    return int((far & sure).sum())


def compare_frame(found: dict, reference: dict, into: Comparison) -> None:
    """Compare one frame with the reference's record of it."""
    for name in OUTPUTS:
        into.tensor(name, found[name], reference[name])
    into.tensor('all_traj_preds[0]', found['all_traj_preds'][0], reference['all_traj_preds_layer0'])
    bev = reference['bev_embed']
    into.tensor('bev_embed rows', found['bev_embed'][:: bev['row_step'], 0], bev['rows'])
    into.tensor('bev_embed row norms', found['bev_embed'][:, 0].norm(dim=-1), bev['row_norm'])
    levels = reference.get('fpn', [])
    if len(levels) > len(found['fpn']):
        into.verdict('fpn', f'{len(found["fpn"])} levels for {len(levels)}', False)
    for i, (ours, theirs) in enumerate(zip(found['fpn'], levels, strict=False)):
        into.tensor(f'fpn[{i}]', sample_points(ours, theirs['idx_n']), theirs['sample'])
    if 'decoded' not in reference:
        return
    ours, theirs = decoded(found['result']), reference['decoded']
    for what, names in DECODED.items():
        into.tensor(f'decoded {what} scores', *(x[names[1]].sort().values for x in (ours, theirs)))
        a, b = ([x[name] for name in names] for x in (ours, theirs))
        missed = unmatched(a, b, into.atol) + unmatched(b, a, into.atol)
        into.verdict(
            f'decoded {what}', f'{len(b[1])} rows, {missed} without their like', not missed
        )


def truth(det: SimpleNamespace) -> Any:
    """The formulas' ground truth as a data sample."""
    from mmdet3d.structures import Det3DDataSample
    from mmengine.structures import BaseDataElement, InstanceData

    from projects.vad.datasets.vector_map import build_map_targets

    boxes, labels, attributes = det.input.gt_agents()
    lines, classes = det.input.gt_map()
    vectors = [dict(label=int(c), pts=np.array(v)) for v, c in zip(lines, classes, strict=True)]
    sample = Det3DDataSample()
    sample.gt_instances_3d = InstanceData(bboxes_3d=boxes, labels_3d=labels, attr_labels=attributes)
    sample.gt_map = InstanceData(**build_map_targets(vectors))
    ego = {name.removeprefix('ego_'): value for name, value in det.input.ego().items()}
    sample.gt_ego = BaseDataElement(
        his_trajs=ego['his_trajs'][0, 0],
        fut_trajs=ego['fut_trajs'][0, 0],
        fut_masks=ego['fut_masks'][0, 0, 0],
        fut_cmd=ego['fut_cmd'][0, 0, 0],
        lcf_feat=ego['lcf_feat'][0, 0, 0],
    )
    return sample


def compare_losses(model: nn.Module, det: SimpleNamespace, reference: dict, into: Comparison):
    """One training step per size on frames 1, 2, 3, without dropout and grid mask."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, 'dropout') and isinstance(module.dropout, float):
            module.dropout = 0.0
    model.grid_mask = None
    for case in (key for key in reference if key.startswith('train_')):
        expected = reference[case]
        size = tuple(int(x) for x in case.removeprefix('train_').split('x'))
        sample = truth(det)
        frames = [
            frame_meta(det, f, size, det.input.can_bus_rel(f, first=f == 1)) for f in (1, 2, 3)
        ]
        sample.set_metainfo(dict(frames=frames))
        images = torch.stack([det.input.image(f, *size) for f in (1, 2, 3)])
        model.train()
        model.zero_grad()
        data = model.data_preprocessor(dict(inputs=dict(img=[images]), data_samples=[sample]))
        losses = model(**data, mode='loss')
        print(f'{case}:')
        for name, value in expected['losses'].items():
            into.loss(name, losses[name].item(), value)
        total = sum(losses.values())
        into.loss('total', total.item(), expected['total'])
        if 'grad_norm' in expected:
            total.backward()
            compare_gradients(model, expected, into)


def compare_gradients(model: nn.Module, expected: dict, into: Comparison) -> None:
    """Gradient norms of the parts that the reference lists, within ten times the tolerance."""
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    into.verdict('parameters without gradient', str(len(idle)), len(idle) == 0)
    worst, where = 0.0, ''
    for prefix, value in expected['grad_norm'].items():
        squares = [
            p.grad.double().square().sum()
            for n, p in model.named_parameters()
            if (n == prefix or n.startswith(prefix + '.')) and p.grad is not None
        ]
        difference = abs(float(sum(squares)) ** 0.5 - value) / max(value, 1e-6)
        if difference > worst:
            worst, where = difference, prefix
    into.verdict('gradient norms', f'worst {worst:.1e} ({where})', worst <= 10 * into.rtol)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the comparison."""
    parser = Parser(description=__doc__)
    parser.add_argument('config', help='config of a VAD model')
    parser.add_argument('--det', type=Path, required=True, metavar='DIR', help='the formulas')
    parser.add_argument('--reference', type=Path, metavar='FILE', help="the original's outputs")
    parser.add_argument('--losses', type=Path, metavar='FILE', help="the original's losses (JSON)")
    parser.add_argument('--atol', type=float, default=1e-3, help='of tensors; default: 1e-3')
    parser.add_argument('--rtol', type=float, default=1e-3, help='of losses; default: 1e-3')
    add_common_arguments(parser)
    args = parser.parse_args(argv)
    check_inputs(parser, args)
    for name in ('reference', 'losses'):
        path = getattr(args, name)
        if path is not None and not path.is_file():
            parser.error(f'--{name} {path} does not exist')
    if args.reference is None and args.losses is None:
        parser.error('nothing to compare with; give --reference or --losses')
    cfg = cli.read_config(args.config, args.cfg_options)
    det = SimpleNamespace(
        fill=load_module(args.det, 'det_fill'), input=load_module(args.det, 'det_input')
    )
    model = build(cfg, det)
    into = Comparison(args.atol, args.rtol)
    if args.reference is not None:
        reference = torch.load(args.reference, weights_only=True)
        wanted = reference['meta'].get('weights_sha256')
        if wanted:
            same = 'equal' if digest(model) == wanted else 'differ from'
            print(f'weights {same} those of the reference')
        size = tuple(int(x) for x in reference['meta']['img_hw'])
        names = sorted(key for key in reference if key.startswith('frame'))
        if not names:
            raise UserError(f'--reference {args.reference} holds no frame1, frame2, ...')
        for name in names:
            print(f'{name} at {size[0]}x{size[1]}:')
            found = run_frame(model, det, int(name.removeprefix('frame')), size)
            compare_frame(found, reference[name], into)
    if args.losses is not None:
        cases = json.loads(args.losses.read_text())
        if not any(key.startswith('train_') for key in cases):
            raise UserError(f'--losses {args.losses} holds no case train_<height>x<width>')
        compare_losses(model, det, cases, into)
    if into.failed:
        print(f'{len(into.failed)} beyond the tolerance: {", ".join(into.failed)}')
        raise SystemExit(1)
    print('all within the tolerance')


if __name__ == '__main__':
    cli.run(main, None)

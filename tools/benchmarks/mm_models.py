"""Unchanged configs of mmdet and mmdet3d, with random weights: pruned, masked, reloaded, trained a step."""

import argparse
import importlib.util
import sys
import tempfile
import time
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
from common import save  # noqa: E402
from mm_inputs import IMAGE, random_batch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.logging import MessageHub, MMLogger  # noqa: E402
from mmengine.optim import build_optim_wrapper  # noqa: E402
from mmengine.registry import MODELS, init_default_scope  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from projects.prune_plugin import build_pruner, mask, slim  # noqa: E402
from projects.prune_plugin.checkpoints.checkpoint_file import save_file  # noqa: E402
from projects.prune_plugin.checkpoints.export.tracing import difference, tensors_of  # noqa: E402
from projects.prune_plugin.checkpoints.model_loading import load_model  # noqa: E402
from projects.prune_plugin.evaluation.profiling import count_params  # noqa: E402
from projects.prune_plugin.structure.units.coverage import uncovered  # noqa: E402
from projects.prune_plugin.structure.units.finder import defined_by  # noqa: E402

RATIO = 0.3
#: All kinds of units, L1 and the default allocator.
PRUNE_CFG = dict(criterion=dict(type='L1'), budget=dict(type='params', ratio=RATIO))
#: Package and config of each model.
CONFIGS = {
    'Faster R-CNN': ('mmdet', 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'),
    'RetinaNet': ('mmdet', 'retinanet/retinanet_r50_fpn_1x_coco.py'),
    'DETR': ('mmdet', 'detr/detr_r50_8xb2-150e_coco.py'),
    'Deformable DETR': ('mmdet', 'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'),
    'DINO': ('mmdet', 'dino/dino-4scale_r50_8xb2-12e_coco.py'),
    'FCOS': ('mmdet', 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'),
    'ATSS': ('mmdet', 'atss/atss_r50_fpn_1x_coco.py'),
    'YOLOv3': ('mmdet', 'yolo/yolov3_d53_8xb8-ms-608-273e_coco.py'),
    'YOLOX': ('mmdet', 'yolox/yolox_s_8xb8-300e_coco.py'),
    'RTMDet': ('mmdet', 'rtmdet/rtmdet_s_8xb32-300e_coco.py'),
    'PointPillars': ('mmdet3d', 'pointpillars/pointpillars_hv_secfpn_8xb6-160e_kitti-3d-3class.py'),
    'FCOS3D': ('mmdet3d', 'fcos3d/fcos3d_r101-caffe-dcn_fpn_head-gn_8xb2-1x_nus-mono3d.py'),
    'PGD': ('mmdet3d', 'pgd/pgd_r101-caffe_fpn_head-gn_16xb2-1x_nus-mono3d.py'),
    'CenterPoint': (
        'mmdet3d', 'centerpoint/centerpoint_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py',
    ),
}  # fmt: skip


def config_file(label: str, folders: dict[str, str | None] | None = None) -> Path | None:
    """Where a model's config lies: in the folder given, else in the installed package; or None.

    Args:
        label: A key of ``CONFIGS``.
        folders: Folders of mmdet's and mmdet3d's repositories, by package.
    """
    package, name = CONFIGS[label]
    folder = (folders or {}).get(package)
    if folder:
        root = Path(folder) / 'configs'
    else:
        spec = importlib.util.find_spec(package)
        if spec is None:
            return None
        root = Path(spec.origin).parent / '.mim' / 'configs'
    return root / name if (root / name).is_file() else None


@torch.no_grad()
def random_model(cfg: Config) -> nn.Module:
    """The config's model, initialised without any download, and with nothing small or zero.

    Layers that begin close to zero would be the first to go, and hide mistakes.
    """
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    for module in model.modules():
        init = getattr(module, 'init_cfg', None)
        if isinstance(init, dict) and init.get('type') == 'Pretrained':
            module.init_cfg = None
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')  # it tells of every tensor
    model.init_weights()
    logger.setLevel(level)
    for parameter in model.parameters():
        if parameter.dim() < 2:
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        elif parameter.std() < (least := parameter[0].numel() ** -0.5):
            parameter.add_(torch.randn_like(parameter), alpha=least)
    for name, buffer in model.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_(std=0.1)
        elif name.endswith('running_var'):
            buffer.uniform_(0.5, 1.5)
    return model


@torch.no_grad()
def outputs(model: nn.Module, batch: dict) -> list[Tensor]:
    """What a detector gives in tensor mode."""
    model.eval()
    data = model.data_preprocessor(deepcopy(batch), False)
    if defined_by(model, '_forward') == 'MVXTwoStageDetector':  # which has no tensor mode
        metas = [sample.metainfo for sample in data['data_samples']]
        found = tensors_of(model.pts_bbox_head(model.extract_feat(data['inputs'], metas)[1]))
    else:
        found = tensors_of(model(**data, mode='tensor'))
    if not found:
        raise RuntimeError(f'{type(model).__name__} gives no tensors to compare')
    return found


def training_step(model: nn.Module, cfg: Config, batch: dict) -> dict[str, Any]:
    """One step with the config's optimizer: the loss, and how many tensors it changed."""
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = [p.detach().clone() for p in model.parameters()]
    model.train()
    MessageHub.get_current_instance().update_info('iter', 0)  # as a Runner does; YOLOX asks for it
    losses = model.train_step(deepcopy(batch), wrapper)
    changed = sum(not p.equal(old) for p, old in zip(model.parameters(), before, strict=True))
    return dict(
        loss=float(losses['loss']),
        finite=all(bool(p.isfinite().all()) for p in model.parameters()),
        changed=changed,
        trainable=sum(p.requires_grad for p in model.parameters()),
    )


def run_model(label: str, file: Path, folder: Path, train: bool = True) -> dict[str, Any]:
    """Prune one config's model, and check what must hold.

    Args:
        label: The model's name.
        file: Its config.
        folder: Where the slim checkpoint goes.
        train: Whether to run a training step as well.
    """
    start = time.perf_counter()
    cfg = Config.fromfile(file)
    init_default_scope(cfg.default_scope)
    model = random_model(cfg)
    plan = build_pruner(PRUNE_CFG).plan(model)
    slimmed, masked = slim(deepcopy(model), plan.state), mask(deepcopy(model), plan.state)
    batch = random_batch(cfg)
    ours, dense = outputs(slimmed, batch), outputs(model, batch)
    path = folder / f'{file.stem}.pth'
    save_file(
        {'meta': {'prune_state': plan.state.to_dict()}, 'state_dict': slimmed.state_dict()}, path
    )
    reloaded = load_model(Config.fromfile(file), str(path)).model
    before, after = count_params(model), count_params(slimmed)
    return dict(
        config=f'{CONFIGS[label][0]}: {CONFIGS[label][1]}',
        params=dict(dense=before, slim=after),
        asked=RATIO,
        achieved=1 - after / before,
        groups=dict(Counter(group.kind for group in plan.groups)),
        mask_slim=difference(outputs(masked, batch), ours),
        dense_slim=difference(dense, ours) if matching(dense, ours) else None,
        reload=difference(outputs(reloaded, batch), ours),
        training=training_step(reloaded, cfg, batch) if train else None,
        not_prunable=plan.refused,
        uncovered=uncovered(model, plan.groups),
        seconds=time.perf_counter() - start,
    )


def matching(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    """Whether shapes are the same; the number of proposals depends on the weights."""
    return [t.shape for t in ours] == [t.shape for t in theirs]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--mmdet', help="mmdet's repository; default: the installed package")
    parser.add_argument('--mmdet3d', help="mmdet3d's repository; default: the installed package")
    parser.add_argument('--models', nargs='+', choices=CONFIGS, default=list(CONFIGS))
    args = parser.parse_args()
    results = {}
    for label in args.models:
        file = config_file(label, dict(mmdet=args.mmdet, mmdet3d=args.mmdet3d))
        if file is None:
            print(f'{label}: no {CONFIGS[label][1]}')
            continue
        with tempfile.TemporaryDirectory() as folder:
            results[label] = run_model(label, file, Path(folder))
        print(f'{label}: {results[label]["seconds"]:.0f} s', flush=True)
    save('mm_models', dict(ratio=RATIO, image=list(IMAGE), models=results))


if __name__ == '__main__':
    main()

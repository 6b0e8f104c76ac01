"""Accuracy right after pruning, without any training, by criterion and allocator, on digits.

Uses the dense model that `make demo-vit` trained (work_dirs/demo_vit/dense), or trains it. All runs remove
the same fraction of all parameters.
"""

import argparse
import subprocess
import sys
from copy import deepcopy

from common import ROOT, save

CONFIG = 'projects/configs/ViT/vit_tiny_digits.py'
METHODS = {
    'Random': dict(criterion=dict(type='Random')),
    'L1': dict(criterion=dict(type='L1')),
    'L2': dict(criterion=dict(type='L2')),
    'Wanda': dict(criterion=dict(type='Wanda')),
    'Taylor, order 1': dict(criterion=dict(type='Taylor', order=1)),
    'Taylor, order 2': dict(criterion=dict(type='Taylor', order=2)),
    'Taylor, order 1, Uniform': dict(
        criterion=dict(type='Taylor', order=1), allocator=dict(type='Uniform')
    ),
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--ratios', type=float, nargs='+', default=[0.3, 0.5, 0.7])
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from mmengine.config import Config

    from projects.prune_plugin import build_pruner, slim
    from projects.prune_plugin.calibration.data import CalibrationData
    from projects.prune_plugin.checkpoints.checkpoint_file import use_safe_loader
    from projects.prune_plugin.checkpoints.model_loading import load_model
    from projects.prune_plugin.evaluation.profiling import count_params
    from projects.prune_plugin.evaluation.test_set import TestSet

    folder = ROOT / 'work_dirs' / 'demo_vit' / 'dense'
    if not (folder / 'done').exists():
        train = [sys.executable, 'tools/train.py', CONFIG, '--work-dir', str(folder)]
        subprocess.run(train, cwd=ROOT, check=True)
        (folder / 'done').touch()
    use_safe_loader()
    cfg = Config.fromfile(ROOT / CONFIG)
    loaded = load_model(cfg, str(folder / 'latest.pth'))
    test_set = TestSet(cfg)

    def data(settings) -> CalibrationData:
        return CalibrationData(cfg.train_dataloader, **settings.sampling)

    def accuracy(model, label: str) -> float:
        return test_set.evaluate(model, label)['accuracy/top1']

    results = []
    for name, blocks in METHODS.items():
        for ratio in args.ratios:
            pruner = build_pruner({**blocks, 'budget': dict(type='params', ratio=ratio)})
            plan = pruner.plan(loaded.model, data)
            pruned = slim(deepcopy(loaded.model), plan.state)
            removed = 1 - count_params(pruned) / count_params(loaded.model)
            label = f'{name}, {ratio}'
            results.append(
                dict(method=name, ratio=ratio, removed=removed, top1=accuracy(pruned, label))
            )
    save('criteria', dict(dense=accuracy(loaded.model, 'dense'), results=results))


if __name__ == '__main__':
    main()

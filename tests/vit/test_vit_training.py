"""A real run of MMEngine's Runner on digits."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_checkpoint

from projects.vit.datasets import Digits

CONFIG = Path(__file__).parents[2] / 'projects' / 'configs' / 'ViT' / 'vit_tiny_digits.py'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Train on 512 digits for four epochs; return config, runner and the first and last loss."""
    folder = tmp_path_factory.mktemp('digits')
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(
        {
            'work_dir': str(folder),
            'experiment_name': folder.name,
            'model.model_kwargs.depth': 2,
            'model.model_kwargs.embed_dim': 64,
            'train_dataloader.dataset.indices': 512,
            'train_dataloader.dataset.transforms': [],
            'train_cfg.max_epochs': 4,
            'optim_wrapper.optimizer.lr': 3e-3,
            'param_scheduler': [],
        }
    )
    runner = Runner.from_cfg(cfg)
    losses = []
    step = runner.model.train_step

    def record(*args, **kwargs):
        log = step(*args, **kwargs)
        losses.append(log['loss'].item())
        return log

    runner.model.train_step = record
    runner.train()
    del runner.model.train_step
    return cfg, runner, losses


def independent_accuracy(network: torch.nn.Module) -> float:
    """Percent correct on the test split, without preprocessor, loop or metric."""
    dataset = Digits('test')
    images = (dataset.images.float() / 255 - 0.2988) / 0.3237
    with torch.no_grad():
        predicted = network.eval()(images).argmax(dim=1)
    return 100 * (predicted == torch.tensor(dataset.labels)).double().mean().item()


def test_it_learns(run):
    _, _, losses = run
    assert len(losses) == 4 * 512 // 32
    assert sum(losses[-4:]) / 4 < 0.9 * sum(losses[:4]) / 4


def test_accuracy_agrees_with_counting(run):
    _, runner, _ = run
    metrics = runner.val_loop.run()
    assert metrics['accuracy/top1'] == pytest.approx(independent_accuracy(runner.model.backbone))
    assert metrics['accuracy/top5'] >= metrics['accuracy/top1'] > 25
    log = next(Path(runner.work_dir).glob('*/*.log')).read_text()
    assert f'Acc@1 {metrics["accuracy/top1"]:.2f}' in log


def test_checkpoint_reloads(run):
    cfg, runner, _ = run
    path = str(Path(runner.work_dir) / 'epoch_4.pth')
    model = MODELS.build(cfg.model)
    checkpoint = load_checkpoint(model, path, strict=True)
    assert list(checkpoint['state_dict']) == [
        f'backbone.{name}' for name in model.backbone.state_dict()
    ]
    assert independent_accuracy(model.backbone) == independent_accuracy(runner.model.backbone)


def test_training_checkpoint_serves_as_pretrained(run):
    cfg, runner, _ = run
    path = str(Path(runner.work_dir) / 'epoch_4.pth')
    model = MODELS.build({**cfg.model, 'pretrained': path, 'num_classes': 4})
    model.init_weights()
    assert torch.equal(model.backbone.cls_token, runner.model.backbone.cls_token)
    assert model.backbone.head.weight.shape[0] == 4

"""What a model says about its weights travels in checkpoints and is checked when they come back."""

from itertools import count

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from projects.prune_plugin import UserError
from projects.prune_plugin.checkpoints.checkpoint_file import load_file
from projects.prune_plugin.training.hooks.model_meta_hook import ModelMetaHook

RUNS = count()


@MODELS.register_module(force=True)
class PlainModel(BaseModel):
    """Has nothing to say about its weights."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.scale = scale
        self.asked: list[str] = []

    def forward(self, x, mode='tensor'):
        out = self.layer(self.scale * x)
        return dict(loss=F.mse_loss(out, x.sum(-1, keepdim=True))) if mode == 'loss' else out


@MODELS.register_module(force=True)
class ModelWithMeta(PlainModel):
    """Its weights belong to inputs of one ``scale``; ``old.`` is what its layer was called once."""

    def checkpoint_meta(self):
        return dict(scale=self.scale)

    def adapt_checkpoint(self, checkpoint, path):
        self.asked.append(str(path))
        if checkpoint['meta'].get('scale', self.scale) != self.scale:
            raise UserError(f'checkpoint {path} was trained at another scale')
        state = {k.replace('old.', 'layer.'): v for k, v in checkpoint['state_dict'].items()}
        return {**checkpoint, 'state_dict': state}


def runner(work_dir, hook: bool = True, **kwargs) -> Runner:
    settings = dict(
        model=dict(type='ModelWithMeta'),
        work_dir=str(work_dir),
        train_dataloader=DataLoader([dict(x=torch.randn(3)) for _ in range(4)], batch_size=2),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(logger=None, checkpoint=dict(type='CheckpointHook', interval=1)),
        custom_hooks=[dict(type='ModelMetaHook')] if hook else [],
        default_scope='mmengine',
        experiment_name=f'meta-{next(RUNS)}',
        log_level='WARNING',
    )
    return Runner(**{**settings, **kwargs})


@pytest.fixture
def trained(tmp_path):
    """A checkpoint of a model at scale 1."""
    runner(tmp_path / 'first').train()
    return tmp_path / 'first' / 'epoch_1.pth'


def test_checkpoints_hold_what_the_model_says(trained):
    meta = load_file(trained)['meta']
    assert meta['scale'] == 1.0 and meta['epoch'] == 1


def test_without_the_hook_they_do_not(tmp_path):
    runner(tmp_path, hook=False).train()
    assert 'scale' not in load_file(tmp_path / 'epoch_1.pth')['meta']


def test_models_without_the_methods_are_left_alone(tmp_path):
    run = runner(tmp_path, model=dict(type='PlainModel'))
    run.train()
    path = tmp_path / 'epoch_1.pth'
    assert 'scale' not in load_file(path)['meta']
    again = runner(tmp_path / 'b', model=dict(type='PlainModel'), load_from=str(path))
    again.load_or_resume()
    assert torch.equal(again.model.layer.weight, run.model.layer.weight)


@pytest.mark.parametrize('resume', [False, True])
def test_the_model_adapts_what_is_loaded(tmp_path, trained, resume):
    checkpoint = torch.load(trained, weights_only=False)
    weights = dict(checkpoint['state_dict'])
    checkpoint['state_dict'] = {k.replace('layer.', 'old.'): v for k, v in weights.items()}
    torch.save(checkpoint, tmp_path / 'old.pth')
    run = runner(tmp_path / 'second', load_from=str(tmp_path / 'old.pth'), resume=resume)
    run.load_or_resume()
    assert len(run.model.asked) == 1
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, weights[name])


@pytest.mark.parametrize('resume', [False, True])
def test_the_model_refuses_what_does_not_fit(tmp_path, trained, resume):
    model = dict(type='ModelWithMeta', scale=2.0)
    run = runner(tmp_path / 'second', model=model, load_from=str(trained), resume=resume)
    before = run.model.layer.weight.clone()
    with pytest.raises(UserError, match='another scale'):
        run.load_or_resume()
    assert torch.equal(run.model.layer.weight, before)


def test_message_names_the_file(tmp_path, trained):
    run = runner(
        tmp_path / 'second', model=dict(type='ModelWithMeta', scale=2.0), load_from=str(trained)
    )
    with pytest.raises(UserError, match='epoch_1.pth'):
        run.load_or_resume()


def test_wrapped_models_are_asked_too(trained):
    """In distributed training the runner's model is a wrapper."""

    class Wrapped:
        model = torch.nn.parallel.DataParallel(ModelWithMeta(scale=3.0))

    checkpoint = dict(meta=dict(epoch=4), state_dict={})
    ModelMetaHook().before_save_checkpoint(Wrapped, checkpoint)
    assert checkpoint['meta'] == dict(epoch=4, scale=3.0)

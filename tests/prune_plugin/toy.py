"""A toy model and a Runner for it: small enough to train in a test."""

from itertools import count

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

SAMPLES, FEATURES, CLASSES = 24, 6, 3
RUNS = count()


@DATASETS.register_module(force=True)
class ToyData(Dataset):
    """Points with labels that a linear map could find."""

    def __init__(self, noise: float = 0.0):
        generator = torch.Generator().manual_seed(11)
        self.inputs = torch.randn(SAMPLES, FEATURES, generator=generator)
        self.labels = (self.inputs @ torch.randn(FEATURES, CLASSES, generator=generator)).argmax(1)
        self.noise = noise

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        jitter = self.noise * torch.randn(FEATURES)
        return dict(inputs=self.inputs[index] + jitter, labels=self.labels[index])


class Mlp(nn.Module):
    """Found by FFNNeurons through its class name."""

    def __init__(self, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(FEATURES, hidden)
        self.norm = nn.Identity()
        self.fc2 = nn.Linear(hidden, CLASSES)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


@MODELS.register_module(force=True)
class ToyModel(BaseModel):
    def __init__(self, hidden: int = 16, dropout: float = 0.0, norm: bool = False):
        super().__init__()
        self.norm = nn.BatchNorm1d(FEATURES) if norm else nn.Identity()
        self.mlp = Mlp(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs, labels=None, mode='tensor'):
        logits = self.dropout(self.mlp(self.norm(inputs)))
        return dict(loss=F.cross_entropy(logits, labels)) if mode == 'loss' else logits


MODEL = dict(type='ToyModel', hidden=16)
EMA = dict(type='EMAHook', momentum=0.2)
LOADER = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ToyData'),
)
ADAMW = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.05, weight_decay=0.1))


def runner(work_dir, epochs: int = 2, hooks=(), **kwargs) -> Runner:
    """A Runner that trains a ToyModel and saves every epoch."""
    settings = dict(
        model=dict(MODEL),
        work_dir=str(work_dir),
        train_dataloader=dict(LOADER),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(ADAMW),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=100),
            checkpoint=dict(type='CheckpointHook', interval=1),
            sampler_seed=dict(type='DistSamplerSeedHook'),
            param_scheduler=dict(type='ParamSchedulerHook'),
        ),
        custom_hooks=list(hooks),
        randomness=dict(seed=0),
        default_scope='mmengine',
        experiment_name=f'toy-{next(RUNS)}',
        log_level='WARNING',
    )
    return Runner(**{**settings, **kwargs})

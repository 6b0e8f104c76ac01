"""Recalibration of batch norms: against plain means, over ranks, and what it must leave alone."""

import os
import random
import socket

import numpy as np
import pytest
import torch
import torch.multiprocessing
import toy
from mmengine.config import Config
from torch import nn

from projects.prune_plugin import UserError
from projects.prune_plugin.calibration.batch_norm import recalibrate
from projects.prune_plugin.calibration.data import CalibrationData
from projects.prune_plugin.calibration.settings import CalibrationSettings
from projects.prune_plugin.common import distributed
from projects.prune_plugin.common.settings import read_settings
from projects.prune_plugin.workflows import cli
from projects.prune_plugin.workflows.options import PruneOptions
from projects.prune_plugin.workflows.prune import prune, pruner_from_config


class Norms(nn.Module):
    """Two batch norms that train, one that is frozen, one never called, and dropout before all."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.first = nn.BatchNorm1d(toy.FEATURES, momentum=0.3)
        self.second = nn.BatchNorm1d(toy.FEATURES)
        self.frozen = nn.BatchNorm1d(toy.FEATURES)
        self.idle = nn.BatchNorm1d(toy.FEATURES)
        self.stateless = nn.BatchNorm1d(toy.FEATURES, track_running_stats=False)
        for i, norm in enumerate((self.first, self.second, self.frozen, self.idle)):
            nn.init.constant_(norm.running_mean, i + 1.0)
            nn.init.constant_(norm.running_var, i + 2.0)
            norm.num_batches_tracked.fill_(7)

    def train(self, mode: bool = True):
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, x):
        x = self.frozen(self.first(self.dropout(x)))
        return self.second(torch.tanh(2 * self.stateless(x)))


def run(model, batch):
    return model(batch['inputs']).mean()


def data(samples: int = 24, size: int = 5) -> CalibrationData:
    loader = dict(dataset=dict(type='ToyData', noise=0.2), collate_fn=dict(type='default_collate'))
    return CalibrationData(loader, samples, size, 3)


def batches() -> list[torch.Tensor]:
    return [batch['inputs'] for _, samples, batch in data() if samples == 5]


def statistics(values: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of the batches' means and of their unbiased variances."""
    means = torch.stack([x.mean(0) for x in values]).mean(0)
    return means, torch.stack([x.var(0) for x in values]).mean(0)


def test_statistics_are_the_mean_over_batches():
    model, inputs = Norms().eval(), batches()
    assert len(inputs) == 4  # twenty-four samples: four of the last five are missing
    assert recalibrate(model, data(), run) == ['first', 'second']
    mean, variance = statistics(inputs)
    torch.testing.assert_close(model.first.running_mean, mean)
    torch.testing.assert_close(model.first.running_var, variance)
    with torch.no_grad():
        hidden = []
        for x in inputs:
            normal = (x - x.mean(0)) / (x.var(0, correction=0) + model.first.eps).sqrt()
            hidden.append(torch.tanh(2 * model.stateless(model.frozen(normal))))
    mean, variance = statistics(hidden)
    torch.testing.assert_close(model.second.running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.second.running_var, variance, rtol=1e-4, atol=1e-5)
    assert model.first.num_batches_tracked == 4


@pytest.mark.parametrize('training', [True, False])
def test_all_else_stays_as_it_was(training):
    model = Norms().train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    recalibrate(model, data(), run)
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert model.first.momentum == 0.3 and model.second.momentum == 0.1
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    assert states[:2] == after[:2] and torch.equal(states[2], after[2])
    for name, value in model.state_dict().items():
        changed = name.split('.')[0] in ('first', 'second') and 'running' in name
        assert torch.equal(value, before[name]) != changed or 'tracked' in name, name
    assert model.idle.num_batches_tracked == 7
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_without_batch_norms():
    model = nn.Linear(toy.FEATURES, 2)
    assert recalibrate(model, data(), lambda model, batch: 1 / 0) == []


def test_an_error_leaves_modes_and_momentum():
    model = Norms().eval()
    with pytest.raises(ZeroDivisionError):
        recalibrate(model, data(), lambda model, batch: 1 / 0)
    assert not model.first.training and model.first.momentum == 0.3


def test_both_pruned_checkpoints_are_recalibrated(tmp_path):
    """The toy's batch norm comes first, so what it sees is the data as it is."""
    cfg = Config(
        dict(
            model=dict(type='ToyModel', hidden=16, norm=True),
            train_dataloader=toy.LOADER,
            prune_cfg=dict(
                units=[dict(type='FFNNeurons')],
                budget=dict(type='params', ratio=0.3),
                calibration=dict(recalibrate_bn=1000, batch_size=8),
            ),
        )
    )
    outcome = prune(cfg, pruner_from_config(cfg), PruneOptions(None, tmp_path))
    mean = toy.ToyData().inputs.mean(0)  # three batches of the same size
    for path in (outcome.structured, outcome.weight_level):
        weights = torch.load(path, weights_only=True)['state_dict']
        torch.testing.assert_close(weights['norm.running_mean'], mean)
        assert weights['norm.num_batches_tracked'] == 3
    assert outcome.report['seconds']['recalibrate'] > 0
    cfg.train_dataloader = None
    with pytest.raises(UserError, match='recalibrate_bn needs data, but the config has no train'):
        prune(cfg, pruner_from_config(cfg), PruneOptions(None, tmp_path))


def on_one_rank(rank: int, port: str, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank), MASTER_PORT=port)
    distributed.init('pytorch')
    found = {}
    for samples in (15, 5):  # three batches, then one: nothing for the second rank
        model = Norms()
        recalibrate(model, data(samples), run)
        found[str(samples)] = model.state_dict()
    torch.save(found, f'{folder}/{rank}.pth')
    cli.shut_down(together=True)


def test_two_ranks_get_what_one_gets(tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    torch.multiprocessing.spawn(on_one_rank, (port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f'{rank}.pth', weights_only=True) for rank in (0, 1))
    for samples in (15, 5):
        model = Norms()
        recalibrate(model, data(samples), run)
        for name, value in model.state_dict().items():
            assert torch.equal(first[str(samples)][name], second[str(samples)][name]), name
            torch.testing.assert_close(first[str(samples)][name], value)
        assert model.first.num_batches_tracked == samples // 5


def test_the_setting_is_checked():
    assert read_settings(CalibrationSettings, dict(recalibrate_bn=64), 'c').recalibrate_bn == 64
    with pytest.raises(UserError, match='calibration.recalibrate_bn is -1; it must be a whole'):
        read_settings(CalibrationSettings, dict(recalibrate_bn=-1), 'calibration')

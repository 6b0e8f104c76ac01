"""Compensation from a config to files."""

import brute_force as brute
import pytest
import torch
import toy
from cases import BY_NAME, NEURONS, flat
from mmengine.config import Config
from test_criteria import samples_for

from projects.prune_plugin import StructuredPruner, UserError, build_slim_model, slim
from projects.prune_plugin.calibration.data import CalibrationData
from projects.prune_plugin.calibration.loss import mmengine_loss
from projects.prune_plugin.methods.compensation import LeastSquares
from projects.prune_plugin.workflows.options import PruneOptions
from projects.prune_plugin.workflows.prune import prune, pruner_from_config


def config(**prune_cfg) -> Config:
    pruning = dict(
        units=[dict(type='FFNNeurons')], criterion=dict(type='Fisher'),
        budget=dict(type='params', ratio=0.4), compensation=dict(type='LeastSquares'),
        calibration=dict(num_samples=24, batch_size=5), weight_level=False,
    )  # fmt: skip
    model = dict(type='ToyModel', hidden=16, norm=True)
    return Config(
        dict(model=model, train_dataloader=toy.LOADER, prune_cfg={**pruning, **prune_cfg})
    )


def test_what_is_saved_has_been_refitted(tmp_path):
    torch.manual_seed(1)
    dense = toy.MODELS.build(dict(type='ToyModel', hidden=16, norm=True))
    torch.save(dict(state_dict=dense.state_dict()), tmp_path / 'dense.pth')
    (tmp_path / 'out').mkdir()
    cfg, options = config(), PruneOptions(str(tmp_path / 'dense.pth'), tmp_path / 'out')
    outcome = prune(cfg, pruner_from_config(cfg), options)
    assert outcome.report['seconds']['compensate'] > 0 and outcome.weight_level is None
    saved = torch.load(outcome.structured, weights_only=True)
    state = outcome.plan.state
    model = build_slim_model(dict(cfg.model), saved['meta']['prune_state'])
    model.load_state_dict(saved['state_dict'])
    data = CalibrationData(toy.LOADER, 24, 5, seed=0)
    inputs = toy.ToyData().inputs
    dense.eval(), model.eval()
    expected = torch.load(tmp_path / 'dense.pth', weights_only=True)['state_dict']
    cut = slim(toy.MODELS.build(dict(cfg.model)), state)
    cut.load_state_dict(slim_state(expected, state, cfg))
    cut.eval()
    changed = {n for n, x in model.state_dict().items() if not torch.equal(x, cut.state_dict()[n])}
    assert changed == {'mlp.fc2.weight', 'mlp.fc2.bias'}
    with torch.no_grad():
        target = dense(inputs)
        assert (model(inputs) - target).norm() < 0.8 * (cut(inputs) - target).norm()
    LeastSquares().apply(dense, state, data, mmengine_loss)
    again = slim(dense, state).state_dict()
    for name, tensor in saved['state_dict'].items():
        assert torch.equal(tensor, again[name]), name


def slim_state(weights: dict, state, cfg) -> dict:
    """The dense weights, cut and not refitted."""
    model = toy.MODELS.build(dict(cfg.model))
    model.load_state_dict(weights)
    return slim(model, state).state_dict()


@pytest.mark.parametrize('criterion', ['Fisher', 'L1'])
def test_without_data_nothing_is_written(tmp_path, criterion):
    cfg = config(criterion=dict(type=criterion))
    cfg.train_dataloader = None
    table, out = tmp_path / 'table.csv', tmp_path / 'out'
    with pytest.raises(
        UserError, match=r'prune_cfg.\w+ (Fisher|LeastSquares) needs calibration data'
    ):
        prune(cfg, pruner_from_config(cfg), PruneOptions(None, out, save_table=str(table)))
    assert not list(tmp_path.iterdir())
    pruner = StructuredPruner([NEURONS], compensation=dict(type='LeastSquares'))
    model = BY_NAME['vit'].dense()
    plan = pruner.plan(model)
    with pytest.raises(UserError, match='compensation LeastSquares needs calibration data; give a'):
        pruner.apply(model, plan)
    for name, tensor in BY_NAME['vit'].dense().state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_a_dry_run_does_not_compensate(tmp_path, monkeypatch):
    def apply(*args):
        raise AssertionError('compensates')

    monkeypatch.setattr(LeastSquares, 'apply', apply)
    cfg = config(criterion=dict(type='L1'))
    outcome = prune(
        cfg, pruner_from_config(cfg), PruneOptions(None, tmp_path / 'out', dry_run=True)
    )
    assert 'compensate' not in outcome.report['seconds'] and not list(tmp_path.iterdir())
    with pytest.raises(AssertionError, match='compensates'):
        prune(cfg, pruner_from_config(cfg), PruneOptions(None, tmp_path / 'out'))


@pytest.mark.parametrize('name', ['llama-gqa', 'vit'])
def test_pruned_by_fisher_and_refitted(name):
    """The whole flow on the models themselves: the outputs move less than without."""
    case, samples = BY_NAME[name], samples_for(name)
    off = []
    for compensation in (None, dict(type='LeastSquares')):
        pruner = StructuredPruner(
            case.units, dict(type='Fisher'), budget=dict(type='params', ratio=0.3),
            compensation=compensation,
        )  # fmt: skip
        model = case.dense()
        plan = pruner.plan(model, lambda s: brute.calibration_data(samples, 2), loss=brute.loss_of)
        pruner.apply(model, plan, lambda s: brute.calibration_data(samples, 2), brute.loss_of)
        assert sum(p.numel() for p in model.parameters()) == case.count(
            {n: len(kept) for n, kept in plan.state.kept.items()}
        )
        inputs = torch.stack([sample['inputs'] for sample in samples])
        with torch.no_grad():
            off.append(float((flat(model(inputs)) - flat(case.dense()(inputs))).norm()))
    assert off[1] < 0.8 * off[0]

"""Units of models in half precision are ranked as those of the same model in float32."""

import brute_force as brute
import pytest
import torch
from cases import BY_NAME
from test_criteria import samples_for
from torch import nn

from projects.prune_plugin import StructuredPruner, UserError
from projects.prune_plugin.calibration import loss_scale
from projects.prune_plugin.common.precision import needs_half, weights_in_float32

HALF = [torch.bfloat16, torch.float16]
CRITERIA = [
    dict(type='L1'), dict(type='L2'), dict(type='Taylor', order=1), dict(type='Taylor', order=2),
    dict(type='Wanda'), dict(type='Fisher'), dict(type='Activation'),
]  # fmt: skip


def model_in(dtype: torch.dtype) -> nn.Module:
    """The tiny Llama with weights that bfloat16 can hold, in any type."""
    return BY_NAME['llama-gqa'].dense().to(torch.bfloat16).to(dtype).eval()


def pruner_of(criterion: dict, **calibration) -> StructuredPruner:
    units = BY_NAME['llama-gqa'].units
    budget = dict(type='params', ratio=0.3)
    return StructuredPruner(units, criterion, budget=budget, calibration=calibration)


def scores(dtype: torch.dtype, criterion: dict, loss=brute.loss_of, **calibration):
    data = brute.calibration_data(samples_for('llama-gqa'))
    pruner = pruner_of(criterion, **calibration)
    return pruner.score(model_in(dtype), lambda _: data, loss=loss).importance


@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('criterion', CRITERIA, ids=lambda c: '-'.join(map(str, c.values())))
def test_ranked_as_in_float32(dtype, criterion):
    found, expected = (torch.cat(scores(kind, criterion)) for kind in (dtype, torch.float32))
    assert torch.allclose(found, expected, 1e-6)
    kept = int(0.7 * len(expected))
    differ = set(found.topk(kept).indices.tolist()) - set(expected.topk(kept).indices.tolist())
    assert len(differ) <= 0.001 * len(expected)


@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('criterion', CRITERIA, ids=lambda c: '-'.join(map(str, c.values())))
def test_in_the_models_own_precision(dtype, criterion):
    """Close to it, and with as many distinct scores as float32 has."""
    found = torch.cat(scores(dtype, criterion, precision='model'))
    expected = torch.cat(scores(torch.float32, criterion))
    assert torch.corrcoef(torch.stack([found, expected]))[0, 1] > 0.99
    assert len(found.unique()) > 0.95 * len(expected.unique())


def test_the_model_is_as_before():
    model, types = model_in(torch.float16), []
    before = {name: (p, p.clone()) for name, p in model.named_parameters()}
    data = brute.calibration_data(samples_for('llama-gqa'))

    def loss(model, batch):
        types.append(next(model.parameters()).dtype)
        return brute.loss_of(model, batch)

    pruner_of(dict(type='Taylor')).score(model, lambda _: data, loss=loss)
    assert set(types) == {torch.float32}
    for (
        name,
        parameter,
    ) in model.named_parameters():  # the same objects, which DDP and optimizers hold
        assert parameter is before[name][0] and torch.equal(parameter, before[name][1])


def test_half_precision_arguments_are_widened():
    model = nn.Linear(2, 2).half()
    with weights_in_float32(model):
        assert model(torch.ones(1, 2, dtype=torch.float16)).dtype == torch.float32
    assert model.weight.dtype == torch.float16


def test_tied_weights_stay_tied():
    model = nn.ModuleList([nn.Linear(2, 2).half(), nn.Linear(2, 2).half()])
    model[1].weight = model[0].weight
    with weights_in_float32(model):
        assert model[0].weight is model[1].weight and model[0].weight.dtype == torch.float32
    assert model[0].weight is model[1].weight and model[0].weight.dtype == torch.float16


def test_flash_attention_keeps_its_precision():
    model = model_in(torch.float16)
    assert not needs_half(model)
    model.config._attn_implementation_internal = 'flash_attention_2'
    assert needs_half(model)


@pytest.mark.parametrize('criterion', [dict(type='Taylor'), dict(type='Fisher')])
def test_small_gradients_do_not_vanish_in_float16(criterion):
    """Of a loss so small that its gradients would be below 6e-8."""

    def loss(model, batch):
        return brute.loss_of(model, batch) * 1e-7

    small = torch.cat(scores(torch.float16, criterion, loss, precision='model'))
    plain = torch.cat(scores(torch.float16, criterion, precision='model'))
    factor = 1e-7 ** (2 if criterion['type'] == 'Fisher' else 1)
    assert (small > 0).all() and torch.allclose(
        small / factor, plain, 0.05, 0.01 * float(plain.max())
    )


def test_an_overflow_lowers_the_scale(monkeypatch):
    """The batch is done again; nothing of the overflow is left in the sums."""
    plain = torch.cat(scores(torch.float16, dict(type='Taylor'), precision='model'))
    monkeypatch.setattr(loss_scale, 'FIRST', 2.0**30)
    found = torch.cat(scores(torch.float16, dict(type='Taylor'), precision='model'))
    assert found.isfinite().all() and torch.allclose(found, plain, 0.05, 0.01 * float(plain.max()))


def test_gradients_that_overflow_at_any_scale_are_refused():
    def loss(model, batch):
        return brute.loss_of(model, batch).float() * 1e30

    with pytest.raises(UserError, match='overflow in float16 weights at any scale of the loss'):
        scores(torch.float16, dict(type='Taylor'), loss, precision='model')

"""Optimal brain surgeon scores against the errors of refitted layers, solved one by one."""

import brute_force as brute
import pytest
import tiny_models as tiny
import torch
from cases import BY_NAME, HEADS, NEURONS
from torch import nn

from projects.prune_plugin import UserError, build_pruner
from projects.prune_plugin.methods.optimal_brain_surgeon import removal_costs

DAMPING = 0.01


def error_without(weights, gram, gone):
    """Least of ``(V - W) H (V - W).T`` over all V that are zero in some columns, summed over outputs."""
    hessian = gram + DAMPING * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    stay = torch.ones(len(gram), dtype=torch.bool)
    stay[gone] = False
    change = torch.zeros_like(weights)
    change[:, ~stay] = -weights[:, ~stay]
    # The gradient with respect to the columns that stay is zero.
    right = -(change[:, ~stay] @ hessian[~stay][:, stay])
    change[:, stay] = torch.linalg.solve(hessian[stay][:, stay], right.T).T
    return float(((change @ hessian) * change).sum())


def reader(seed, outputs=5, units=6, per_unit=1, rows=40):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, units * per_unit, dtype=torch.float64, generator=generator)
    x = x @ torch.randn(len(x.T), len(x.T), dtype=torch.float64, generator=generator)
    weights = torch.randn(outputs, len(x.T), dtype=torch.float64, generator=generator)
    return weights, x.T @ x / rows, torch.arange(len(x.T)).view(units, per_unit)


@pytest.mark.parametrize('readers', [1, 2])
@pytest.mark.parametrize('per_unit', [1, 3])
def test_costs_are_what_each_removal_adds_to_the_error(per_unit, readers):
    all_readers = [reader(seed, per_unit=per_unit) for seed in range(readers)]

    def total(units):
        return sum(error_without(w, g, columns[units].flatten()) for w, g, columns in all_readers)

    costs = removal_costs(all_readers, DAMPING, 1, 'units')
    gone, highest = [], 0.0
    while len(gone) < 6:  # greedily, by hand
        left = [unit for unit in range(6) if unit not in gone]
        added = {unit: total([*gone, unit]) - (total(gone) if gone else 0.0) for unit in left}
        unit = min(added, key=added.get)
        gone.append(unit)
        highest = max(highest, added[unit])
        assert float(costs[unit]) == pytest.approx(highest, rel=1e-6)
    assert costs.argsort().tolist() == gone


def test_units_that_go_together_have_the_costs_of_one_step():
    one = reader(3)
    alone = torch.tensor([error_without(one[0], one[1], [unit]) for unit in range(6)]).double()
    costs = removal_costs([one], DAMPING, 3, 'units')
    first = alone.argsort()[:3]
    torch.testing.assert_close(costs[first], alone[first], rtol=1e-6, atol=0)
    assert float(costs[first].max()) < float(costs.min()) or set(
        costs.argsort()[:3].tolist()
    ) == set(first.tolist())


def test_of_two_equal_units_one_can_go():
    weights, gram, columns = reader(1)
    x = torch.linalg.cholesky(gram).T.clone()
    x[:, 1] = x[:, 0]
    costs = removal_costs([(weights, x.T @ x, columns)], 1e-6, 1, 'units')
    low, high = sorted(float(costs[unit]) for unit in (0, 1))
    assert low < 1e-3 * high


def test_inputs_that_are_always_zero_cost_nothing_and_arguments_stay():
    weights, gram, columns = reader(2)
    gram[4], gram[:, 4] = 0, 0
    before = weights.clone(), gram.clone()
    costs = removal_costs([(weights, gram, columns)], DAMPING, 1, 'units')
    assert int(costs.argmin()) == 4 and float(costs[4]) < 1e-12
    assert torch.equal(weights, before[0]) and torch.equal(gram, before[1])


def scored(model, units, **keys):
    """Scores of a ViT's units, its samples, and the groups."""
    generator = torch.Generator().manual_seed(9)
    samples = brute.dataset(
        lambda _: torch.randn(3, 32, 32, generator=generator), 6, tiny.NUM_CLASSES
    )
    pruner = build_pruner(
        dict(units=units, criterion=dict(type='OptimalBrainSurgeon', at_once=1, **keys))
    )
    groups, _ = pruner.discover(model)
    data = brute.calibration_data(samples, batch_size=1)
    return pruner.scores(model, groups, lambda _: data, brute.loss_of), samples, groups


@pytest.mark.parametrize('gradients', [True, False])
def test_scores_of_a_vit_are_its_readers_errors(gradients):
    model = BY_NAME['vit'].dense()
    scores, samples, groups = scored(model, [HEADS, NEURONS], gradients=gradients)
    for group, found in zip(groups, scores, strict=True):
        path = f'{group.name}.{"fc2" if group.kind == "mlp" else "proj"}'
        layer, inputs, gradient = model.get_submodule(path), [], []

        def keep(module, args, output, inputs=inputs, gradient=gradient):
            inputs.append(args[0].detach().flatten(0, -2).double())
            output.register_hook(lambda g: gradient.append(g.flatten(0, -2).double()))

        handle = layer.register_forward_hook(keep)
        for batch in brute.batches(samples, brute.calibration_data(samples, batch_size=1)):
            brute.loss_of(model.eval(), batch).backward()
        handle.remove()
        x, sizes = torch.cat(inputs), torch.cat(gradient).square().mean(0).sqrt()
        centred = x - x.mean(0)
        weights = layer.weight.detach().double() * (sizes[:, None] if gradients else 1.0)
        weights = weights * (len(x) / len(samples)) ** 0.5
        columns = torch.arange(x.shape[1]).view(group.size, -1)
        gram = centred.T @ centred / len(x)
        alone = [error_without(weights, gram, columns[unit]) for unit in range(group.size)]
        assert int(found.argmin()) == alone.index(min(alone))
        assert float(found.min()) == pytest.approx(min(alone), rel=1e-3)


def test_scores_of_convolutions_have_no_ties():
    """Channels that the next convolution reads with a kernel of several taps."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(),
        nn.Linear(6 * 8 * 8, 4),
    ).eval()  # fmt: skip
    x = torch.randn(5, 3, 12, 12)
    pruner = build_pruner(
        dict(
            criterion=dict(type='OptimalBrainSurgeon', at_once=9),
            compensation=dict(type='LeastSquares'),
            budget=dict(ratio=0.3),
        )
    )
    data = brute.calibration_data([dict(inputs=row) for row in x], batch_size=1)

    def loss(model, batch):
        return model(batch['inputs']).square().mean()

    plan = pruner.plan(model, lambda _: data, loss=loss, example_inputs=x)
    assert all(
        bool((score > 0).all()) and len(score.unique()) == len(score) for score in plan.importance
    )


def test_units_that_it_is_not_for_are_refused_before_data_is_read():
    case = BY_NAME['vit-layers']
    pruner = build_pruner(dict(units=list(case.units), criterion=dict(type='OptimalBrainSurgeon')))
    with pytest.raises(UserError, match=r'OptimalBrainSurgeon cannot score blocks\.0'):
        pruner.plan(case.dense(), lambda _: pytest.fail('data was read'), loss=brute.loss_of)


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        (dict(damping=-1), 'damping'),
        (dict(gradients=1), 'gradients is 1; it must be True or False'),
        (dict(at_once=0), 'at_once'),
    ],
)
def test_bad_settings(keys, message):
    with pytest.raises(UserError, match=message):
        build_pruner(dict(criterion=dict(type='OptimalBrainSurgeon', **keys)))

"""Criteria against their definitions, and what calibration must leave alone."""

from copy import deepcopy
from functools import cache

import brute_force as brute
import pytest
import tiny_models as tiny
import torch
from cases import BY_NAME, CRITERIA_ROWS, HEADS, NEURONS
from torch import nn

from projects.prune_plugin import CRITERIA, StructuredPruner, UserError
from projects.prune_plugin.calibration import collect
from projects.prune_plugin.registry import build
from projects.prune_plugin.units import named_tensors

FAMILIES = sorted(brute.UNITS_BY_HAND)
SAMPLES = 7  # in batches of three, so that the last one is smaller


@cache
def samples_for(family: str) -> list[dict]:
    generator = torch.Generator().manual_seed(9)
    shape = {'torch_encoder': (5, 32)}.get(family, (3, 32, 32))
    classes = {'torch_encoder': 32, 'llama-gqa': tiny.VOCABULARY}.get(family, tiny.NUM_CLASSES)

    def inputs(index: int):
        if family == 'llama-gqa':
            return torch.randint(0, tiny.VOCABULARY, (6,), generator=generator)
        return torch.randn(shape, generator=generator)

    return brute.dataset(inputs, SAMPLES, classes)


@cache
def truth_of(family: str) -> brute.Truth:
    model, samples = BY_NAME[family].dense(), samples_for(family)
    data = brute.calibration_data(samples)
    gradient, fisher = brute.gradients(model, samples, data)
    rms = brute.input_rms(model, samples, data)
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    return brute.Truth(brute.UNITS_BY_HAND[family], parameters, gradient, fisher, rms)


def statistics_of(family: str, model: nn.Module, kinds, groups=None):
    data = brute.calibration_data(samples_for(family))
    groups = BY_NAME[family].groups() if groups is None else groups
    return collect(model, groups, frozenset(kinds), data, brute.loss_of)


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('row', CRITERIA_ROWS, ids=lambda r: '-'.join(map(str, r.values())))
def test_scores_are_the_definition(family, row):
    criterion = build(CRITERIA, row, 'criterion')
    case = BY_NAME[family]
    model, groups = case.dense(), case.groups()
    statistics = None
    if criterion.statistics:
        statistics = statistics_of(family, model, criterion.statistics)
    scores = criterion.scores(groups, named_tensors(model), statistics)
    assert [len(s) for s in scores] == [g.size for g in groups]
    assert all(s.dtype == torch.float64 for s in scores)
    if row['type'] == 'Random':
        units, parameters = brute.UNITS_BY_HAND[family], dict(model.named_parameters())
        for group, score in zip(groups, scores, strict=True):
            held = brute.weights_held(units(group.name, 0), parameters)
            assert 0 <= float(score.min()) and float(score.max()) < held
            assert len(score.unique()) == group.size
        return
    definition, truth = brute.DEFINITIONS[row['type']], truth_of(family)
    for group, score in zip(groups, scores, strict=True):
        expected = [definition(truth, group.name, u, row) for u in range(group.size)]
        expected = brute.normalised(expected, row.get('normalize', 'none'))
        expected = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(score, expected, rtol=2e-4, atol=1e-6 * float(expected.max()))


def test_random_depends_on_seed_and_name_alone():
    case = BY_NAME['vit']
    groups, tensors = case.groups(), named_tensors(case.dense())

    def scores(seed, groups=groups):
        return build(CRITERIA, dict(type='Random', seed=seed), '').scores(groups, tensors)

    one = scores(1)
    assert all(map(torch.equal, one, scores(1)))
    assert not any(map(torch.equal, one, scores(2)))
    assert not torch.equal(one[1], one[0])  # two groups of one size
    assert all(map(torch.equal, one, scores(1, groups[::-1])[::-1]))


def test_statistics_count_every_sample_once():
    statistics = statistics_of('vit', BY_NAME['vit'].dense(), ['gradients', 'activations'])
    assert statistics.samples == SAMPLES
    assert not statistics.squared_gradients
    limited = brute.calibration_data(samples_for('vit'), batch_size=2, num_samples=5)
    chosen = torch.cat(limited.batches).tolist()
    assert len(chosen) == len(set(chosen)) == 5
    assert [number for number, _, _ in limited] == [0, 1, 2]


@pytest.mark.parametrize('family', FAMILIES)
def test_calibration_leaves_no_trace(family):
    case = BY_NAME[family]
    model = case.dense().train()
    next(model.parameters()).requires_grad_(False)
    before, modules = deepcopy(model.state_dict()), list(model.modules())
    flags = [p.requires_grad for p in model.parameters()]
    random_state = torch.get_rng_state()
    kinds = ['gradients', 'squared_gradients', 'activations']
    statistics = statistics_of(family, model, kinds)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert list(model.modules()) == modules and all(m.training for m in model.modules())
    assert flags == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_pre_hooks for m in model.modules())
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    again = statistics_of(family, model, kinds)
    assert all(torch.equal(g, again.gradients[n]) for n, g in statistics.gradients.items())


def test_frozen_parameters_are_scored_too():
    free, frozen = BY_NAME['vit'].dense(), BY_NAME['vit'].dense().requires_grad_(False)
    one, other = (statistics_of('vit', m, ['gradients']).gradients for m in (free, frozen))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_wanda_sees_neurons_of_fused_layers():
    """Without a group of heads nothing keeps PyTorch from its fused encoder layer."""
    case = BY_NAME['torch_encoder']
    groups = [g for g in case.groups() if g.kind == 'mlp']
    rms = statistics_of('torch_encoder', case.dense(), ['activations'], groups).input_rms
    truth = truth_of('torch_encoder').rms
    for name in rms:
        torch.testing.assert_close(rms[name], truth[name], rtol=1e-4, atol=1e-6)


def test_without_data_a_criterion_that_needs_some_is_refused():
    pruner = StructuredPruner([HEADS, NEURONS], dict(type='Taylor'))
    with pytest.raises(UserError, match='Taylor needs calibration data'):
        pruner.plan(BY_NAME['vit'].dense())


def test_scores_that_are_not_finite_are_refused():
    model = BY_NAME['vit'].dense()
    with torch.no_grad():
        model.blocks[1].mlp.fc1.weight[3, 4] = float('nan')
    with pytest.raises(UserError, match=r'blocks\.1\.mlp are not finite'):
        StructuredPruner([NEURONS]).plan(model)


def test_wanda_refuses_units_that_nothing_reads():
    case = BY_NAME['vit-layers']
    pruner = StructuredPruner(case.units, dict(type='Wanda'))
    samples = samples_for('vit')
    with pytest.raises(UserError, match='Wanda cannot score blocks.0'):
        pruner.plan(case.dense(), lambda _: brute.calibration_data(samples), loss=brute.loss_of)


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (
            dict(type='L1', parts='up'),
            r"prune_cfg.criterion.parts is 'up'; valid are in, out, both",
        ),
        (dict(type='Taylor', order=3), 'prune_cfg.criterion.order is 3; valid are 1, 2'),
        (dict(type='L2', normalize='sum'), "normalize is 'sum'; valid are none, mean, max"),
        (dict(type='L1', part='in'), 'prune_cfg.criterion.part is not a key of L1'),
        (dict(type='L7'), "prune_cfg.criterion.type is 'L7'; valid are"),
        (dict(), 'prune_cfg.criterion.type is None; valid are'),
        ('L1', "prune_cfg.criterion is 'L1'; it must be a dict"),
    ],
)
def test_bad_criterion_is_named(cfg, message):
    with pytest.raises(UserError, match=message):
        StructuredPruner(criterion=cfg)


def test_whole_layers_are_scored_by_all_their_weights():
    case = BY_NAME['vit-layers']
    model = case.dense()
    (scores,) = zip(
        *build(CRITERIA, dict(type='L1'), '').scores(case.groups(), named_tensors(model)),
        strict=True,
    )
    expected = [
        sum(float(p.detach().double().abs().sum()) for p in block.parameters() if p.dim() > 1)
        for block in model.blocks
    ]
    assert [float(s) for s in scores] == pytest.approx(expected, rel=1e-6)

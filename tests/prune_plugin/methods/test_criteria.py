"""Criteria against their definitions, and what calibration must leave alone."""

from copy import deepcopy
from functools import cache

import brute_force as brute
import pytest
import tiny_models as tiny
import torch
from cases import BY_NAME, CRITERIA_ROWS, HEADS, NEURONS
from mmengine import dist
from torch import nn

from projects.prune_plugin import CRITERIA, Criterion, StructuredPruner, UserError, build_pruner
from projects.prune_plugin.calibration import statistics
from projects.prune_plugin.calibration.collect import collect
from projects.prune_plugin.calibration.loss import weighted_losses
from projects.prune_plugin.common.registry import build
from projects.prune_plugin.structure.units import named_tensors

FAMILIES = sorted(brute.UNITS_BY_HAND)
ROWS = [
    *CRITERIA_ROWS,
    dict(type='Wanda', norm='l1'),
    dict(type='Wanda', parts='both', norm='l1'),
]
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
    inputs = brute.input_sizes(model, samples, data)
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    units = brute.UNITS_BY_HAND[family]
    sizes = {group.name: group.size for group in BY_NAME[family].groups()}
    gates = brute.gates_by_hand(model, units, sizes, brute.batches(samples, data))
    return brute.Truth(units, parameters, gradient, fisher, *inputs, gates)


def statistics_of(family: str, model: nn.Module, kinds, groups=None):
    data = brute.calibration_data(samples_for(family))
    groups = BY_NAME[family].groups() if groups is None else groups
    return collect(model, groups, frozenset(kinds), data, brute.loss_of)


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('row', ROWS, ids=lambda r: '-'.join(map(str, r.values())))
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


@pytest.mark.parametrize(
    ('found', 'message'),
    [
        (
            lambda group: torch.ones(group.size - 1),
            r'Mine gives \(3,\) as the scores of \S+; it must',
        ),
        (lambda group: torch.ones(group.size + 1), r'must be a tensor of shape \(4,\)'),
        (lambda group: [1.0] * group.size, 'Mine gives list'),
    ],
)
def test_scores_of_another_shape_are_refused(found, message):
    class Mine(Criterion):
        def score(self, group, tensors, statistics):
            return found(group)

    case = BY_NAME['vit']
    with pytest.raises(UserError, match=message):
        Mine().scores(case.groups(), dict(case.dense().named_parameters()))


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


class Telling(nn.Module):
    """The case ``branches``, whose first branch tells how much its neurons are used."""

    def __init__(self):
        super().__init__()
        self.model = BY_NAME['branches'].dense()
        self.model.classes.unit_usage = self.usage

    @staticmethod
    def usage(output):
        total = output.abs().sum()
        return {'branch': torch.arange(24.0) * total}

    def forward(self, x):
        return self.model(x)[0]


def telling_groups():
    """The first branch's first neurons, as units that tell, and the second branch's, which don't."""
    from dataclasses import replace

    found = {g.name: g for g in BY_NAME['branches'].groups()}
    renamed = []
    for name in ('classes.0', 'boxes.0'):
        group = found[name]
        cuts = tuple(replace(cut, name=f'model.{cut.name}') for cut in group.cuts)
        owner = f'model.{group.owner}'
        renamed.append(replace(group, name=f'model.{name}', cuts=cuts, owner=owner))
    return renamed


@cache
def telling_samples() -> list[dict]:
    generator = torch.Generator().manual_seed(4)
    return brute.dataset(lambda i: torch.randn(16, generator=generator), SAMPLES, 5)


def used(groups, num_samples: int = 99):
    data = brute.calibration_data(telling_samples(), num_samples=num_samples)
    return collect(Telling(), groups, frozenset(('usage',)), data, brute.loss_of)


def test_usage_is_what_modules_tell_per_sample():
    groups, model = telling_groups(), Telling()
    statistics = used(groups)
    with torch.no_grad():
        outputs = [model(sample['inputs'][None]) for sample in telling_samples()]
    mean = sum(float(out.abs().sum()) for out in outputs) / SAMPLES
    scores = build(CRITERIA, dict(type='Usage'), '').scores(groups[:1], {}, statistics)
    torch.testing.assert_close(scores[0], torch.arange(24).double() * mean, rtol=1e-5, atol=0)
    assert scores[0].dtype == torch.float64 and not statistics.gradients
    with pytest.raises(UserError, match=r'Usage cannot score model\.boxes\.0: its module does not'):
        build(CRITERIA, dict(type='Usage'), '').scores(groups, {}, statistics)


def test_usage_of_kinds_that_a_module_does_not_name_is_not_known():
    from dataclasses import replace

    group = replace(telling_groups()[0], kind='query')
    assert used([group]).usage == {}


@pytest.mark.parametrize('num_samples', [99, 2])
def test_usage_of_two_ranks_is_that_of_one(monkeypatch, num_samples):
    """Both hold the same names to add up, also where the second has no batch."""
    groups = telling_groups()[:1]
    name = groups[0].name
    alone = used(groups, num_samples)

    def held_by(rank: int):
        tables = []
        with monkeypatch.context() as patch:
            patch.setattr(dist, 'get_dist_info', lambda: (rank, 2))
            patch.setattr(statistics, 'sum_over_ranks', lambda t: tables.append(deepcopy(t)))
            used(groups, num_samples)
        return next(table[name] for table in tables if name in table)

    total = held_by(0) + held_by(1)
    torch.testing.assert_close(total / alone.samples, alone.usage[name])


def test_by_kind_shares_out_what_the_default_gives():
    """Among units by their own criterion; the sum of a group is the default's."""
    case = BY_NAME['vit']
    model, groups = case.dense(), case.groups()
    tensors = named_tensors(model)
    row = dict(type='ByKind', default=dict(type='L1'), kinds=dict(mlp=dict(type='Random', seed=2)))
    criterion = build(CRITERIA, row, 'prune_cfg.criterion')
    assert criterion.statistics == frozenset()
    found = criterion.scores(groups, tensors)
    default, own = (
        build(CRITERIA, cfg, '').scores(groups, tensors)
        for cfg in (dict(type='L1'), dict(type='Random', seed=2))
    )
    for group, score, base, other in zip(groups, found, default, own, strict=True):
        assert float(score.sum()) == pytest.approx(float(base.sum()))
        if group.kind == 'mlp':
            shares = [float(x) / sum(other.tolist()) for x in other]
            expected = [share * float(base.sum()) for share in shares]
            assert score.tolist() == pytest.approx(expected)
        else:
            assert torch.equal(score, base)
    assert {g.kind for g in groups} == {'mlp', 'attention'}
    both = build(CRITERIA, dict(row, kinds=dict(mlp=dict(type='Taylor', order=2))), '')
    assert both.statistics == {'gradients', 'squared_gradients'}


@pytest.mark.parametrize(
    ('kinds', 'message'),
    [
        (dict(head=dict(type='L2')), "kinds: 'head' matches nothing; kinds of units here are att"),
        (['mlp'], r"prune_cfg.criterion.kinds is \['mlp'\]; it must be a dict"),
        (dict(mlp=dict(type='L9')), "prune_cfg.criterion.kinds.mlp.type is 'L9'; valid are"),
    ],
)
def test_bad_kinds_are_named(kinds, message):
    case, row = BY_NAME['vit'], dict(type='ByKind', default=dict(type='L1'), kinds=kinds)
    with pytest.raises(UserError, match=message):
        StructuredPruner(case.units, row).plan(case.dense())


def test_losses_are_weighted_by_name_where_no_task_is_known():
    losses = {'loss_a': torch.tensor(2.0), 'aux.loss': [torch.tensor(3.0), torch.tensor(5.0)],
              'accuracy': torch.tensor(7.0), 'loss_b': torch.tensor(11.0)}  # fmt: skip
    found = weighted_losses(losses, {'loss_': 0.5, 'loss_a': 4, r'aux\.': 0})
    assert found == {'loss_a': 4.0, 'aux.loss': [0.0, 0.0], 'accuracy': 7.0, 'loss_b': 5.5}
    assert losses['loss_a'] == 2  # as it was
    for key in ('accuracy', 'b', 'loss$'):
        with pytest.raises(
            UserError, match=r'matches nothing; losses here are loss_a, aux.loss, loss_b'
        ):
            weighted_losses(losses, {key: 2.0})
    tasks = dict(loss_a='one', loss_b='two').get
    found = weighted_losses({k: losses[k] for k in ('loss_a', 'loss_b')}, {'two': 3}, tasks)
    assert found == {'loss_a': 2.0, 'loss_b': 33.0}


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


def test_remain_inside_of_by_kind_ranks_over_all_groups():
    """At the budget's ratio, as it does alone: what is shared out are its own shares."""
    model = BY_NAME['vit'].dense()
    alone = build_pruner(dict(criterion=dict(type='Remain'), budget=dict(type='params', ratio=0.5)))
    both = build_pruner(
        dict(
            criterion=dict(
                type='ByKind', default=dict(type='L1'), kinds=dict(mlp=dict(type='Remain'))
            ),
            budget=dict(type='params', ratio=0.5),
        )
    )
    one, other = alone.plan(model), both.plan(model)
    for group, a, b in zip(one.groups, one.importance, other.importance, strict=True):
        if group.kind == 'mlp':
            assert len(a.unique()) > 1
            torch.testing.assert_close(a / a.sum(), b / b.sum())


def test_equal_scores_are_no_choice(monkeypatch):
    from projects.prune_plugin.methods.criteria import base

    said = []
    monkeypatch.setattr(base, 'print_log', lambda text, *_: said.append(text))
    scores = [torch.full((3,), 2.0), torch.full((2,), 2.0)]
    base.checked(scores, build(CRITERIA, dict(type='L1'), 'key'))
    assert said == ['L1 scores every unit 2: which of them go is arbitrary']
    base.checked([torch.tensor([1.0, 2.0])], build(CRITERIA, dict(type='L1'), 'key'))
    assert len(said) == 1

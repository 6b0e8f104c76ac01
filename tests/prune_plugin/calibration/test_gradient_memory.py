"""Statistics of gradients in bounded memory: in parts, with the same scores bit for bit."""

import weakref

import brute_force as brute
import pytest
import torch
from cases import BY_NAME
from test_criteria import samples_for

from projects.prune_plugin import StructuredPruner, UserError
from projects.prune_plugin.calibration import collect as calibration
from projects.prune_plugin.calibration.collect import collect, within_memory
from projects.prune_plugin.methods.pruners import structured

TAYLOR = frozenset(('gradients',))
BOTH = frozenset(('gradients', 'squared_gradients'))


def pruner_with(limit: float | None, case, criterion: dict) -> StructuredPruner:
    return StructuredPruner(case.units, criterion, calibration=dict(gradient_memory=limit))


def scores_within(limit: float | None, name: str, criterion: dict):
    case = BY_NAME[name]
    data = brute.calibration_data(samples_for(name))
    model = case.dense()
    pruner = pruner_with(limit, case, criterion)
    return pruner.scores(model, case.groups(), lambda settings: data, brute.loss_of)


class Held:
    """Notes the largest number of bytes that statistics of gradients hold at a time."""

    def __init__(self, monkeypatch):
        self.alive: list[weakref.ref] = []
        self.peak, self.parts = 0, []
        made = torch.zeros_like

        def zeros_like(x, *args, **kwargs):
            new = made(x, *args, **kwargs)
            if kwargs.get('dtype') == torch.float64:
                self.alive = [r for r in (*self.alive, weakref.ref(new)) if r() is not None]
                self.peak = max(self.peak, sum(r().nbytes for r in self.alive))
            return new

        def counted(model, groups, *args):
            self.parts.append(len(groups))
            return collect(model, groups, *args)

        monkeypatch.setattr(calibration.torch, 'zeros_like', zeros_like)
        monkeypatch.setattr(structured, 'collect', counted)


CRITERIA = {
    'taylor': dict(type='Taylor'),
    'taylor2': dict(type='Taylor', order=2, normalize='mean'),
    'by_kind': dict(type='ByKind', default=dict(type='Taylor', order=2),
                    kinds=dict(mlp=dict(type='Fisher'), attention=dict(type='Wanda'))),
}  # fmt: skip


@pytest.mark.parametrize('criterion', CRITERIA)
@pytest.mark.parametrize('name', ['llama-gqa', 'vit'])
def test_the_same_scores_within_the_limit(name, criterion, monkeypatch):
    whole = scores_within(None, name, CRITERIA[criterion])
    held = Held(monkeypatch)
    again = scores_within(None, name, CRITERIA[criterion])
    everything = held.peak
    assert held.parts == [6] and all(map(torch.equal, whole, again))
    largest = max(
        sum(p.numel() * 8 for n, p in BY_NAME[name].dense().named_parameters() if n in cut)
        for cut in ({c.name for c in g.cuts} for g in BY_NAME[name].groups())
    ) * (1 if criterion == 'taylor' else 2)  # fmt: skip
    for limit in (everything, everything / 2, largest):
        held.peak, held.parts = 0, []
        found = scores_within(limit / 1e9, name, CRITERIA[criterion])
        assert held.peak <= limit and sum(held.parts) == 6
        assert (len(held.parts) > 1) == (limit < everything)
        for one, other in zip(whole, found, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize('name', ['torch_encoder', 'resnet18-channel'])
def test_the_same_scores_of_other_families(name):
    """PyTorch's fused encoder layers may not run where a part asks for no gradients."""
    whole = scores_within(None, name, dict(type='Taylor'))
    found = scores_within(1e-6, name, dict(type='Taylor'))
    assert all(map(torch.equal, whole, found))


def test_a_group_above_the_limit_is_a_part_of_its_own(monkeypatch):
    case, said = BY_NAME['llama-gqa'], []
    monkeypatch.setattr(calibration, 'print_log', lambda message, *args: said.append(message))
    groups = case.groups()
    parts = within_memory(case.dense(), groups, TAYLOR, 1e-9)
    assert parts == [[group] for group in groups] and len(said) == 6
    assert said[0].startswith('gradients of model.layers.0.self_attn alone take 8.19e-05 GB, more ')
    # 8 bytes x 64 x (64 + 16 + 16 + 64) = 81,920; an MLP has 8 x 3 x 64 x 96 = 147,456
    said.clear()
    parts = within_memory(case.dense(), groups, TAYLOR, 1e-4)
    assert [[g.kind for g in part] for part in parts] == [['attention']] * 3 + [['mlp']] * 3
    assert len(said) == 3 and 'mlp alone take 0.000147 GB' in said[0]
    sizes = [len(part) for part in within_memory(case.dense(), groups, TAYLOR, 81_920 * 2 / 1e9)]
    assert sizes == [2, 1, 1, 1, 1]
    sizes = [len(part) for part in within_memory(case.dense(), groups, BOTH, 81_920 * 4 / 1e9)]
    assert sizes == [2, 1, 1, 1, 1]


def test_weights_that_groups_share_count_once():
    case = BY_NAME['mmcv_decoder']  # the FFN's middle layer is cut by two groups
    model = case.dense()
    pair = [g for g in case.groups() if g.kind == 'mlp']
    each = [calibration.scored_weights(model, [group]) for group in pair]
    shared = set(each[0]) & set(each[1])
    assert shared == {'layer.ffns.0.layers.1.0.weight'}
    together = sum({**each[0], **each[1]}.values()) * 8
    assert together < sum(sum(e.values()) for e in each) * 8
    assert len(within_memory(model, pair, TAYLOR, together / 1e9)) == 1
    assert len(within_memory(model, pair, TAYLOR, (together - 1) / 1e9)) == 2


def test_what_needs_no_gradients_of_weights_is_one_part():
    case = BY_NAME['llama-gqa']
    for kinds in (frozenset(('fisher',)), frozenset(('activations',))):
        assert within_memory(case.dense(), case.groups(), kinds, 1e-9) == [case.groups()]


@pytest.mark.parametrize('value', [0, -1, True, '2', float('nan'), float('inf')])
def test_bad_limits(value):
    with pytest.raises(UserError, match=r'prune_cfg.calibration.gradient_memory is .*a number > 0'):
        pruner_with(value, BY_NAME['vit'], dict(type='Taylor'))

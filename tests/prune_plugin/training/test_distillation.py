"""Distillation: losses against plain definitions, targets that say what is wrong with them."""

import math
from dataclasses import MISSING
from pathlib import Path

import pytest
import torch
from torch import nn

from projects.prune_plugin import PruneState, UserError
from projects.prune_plugin.common.settings import read_settings
from projects.prune_plugin.structure.unit_group import UnitGroup
from projects.prune_plugin.training.distillation import (
    LOSSES,
    Target,
    bce,
    check_distill,
    kept_entries,
    kl,
    l1,
    mse,
    read_targets,
    targets_for,
)
from projects.prune_plugin.training.settings import RecoverySettings


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return tuple(3 * torch.randn(*shape, generator=generator) for _ in range(2))


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(x / temperature) for x in row]
    return [p / sum(powers) for p in powers]


def test_mse_is_in_units_of_the_teachers_variance():
    student, teacher = pair(4, 5)
    ours, theirs = student.flatten().tolist(), teacher.flatten().tolist()
    mean = sum(theirs) / 20
    variance = sum((t - mean) ** 2 for t in theirs) / 20
    expected = sum((s - t) ** 2 for s, t in zip(ours, theirs, strict=True)) / 20 / variance
    assert float(mse(student, teacher)) == pytest.approx(expected, rel=1e-5)
    assert float(mse(10 * student, 10 * teacher)) == pytest.approx(expected, rel=1e-5)
    assert float(mse(teacher.mean().expand(4, 5), teacher)) == pytest.approx(1)
    assert mse(torch.ones(3), torch.ones(3)) == 0  # a constant teacher


def test_l1_is_the_mean_distance():
    assert float(l1(torch.tensor([1.0, -2.0]), torch.tensor([0.0, 3.0]))) == 3


def test_bce_is_cross_entropy_less_the_teachers_entropy():
    student, teacher = pair(3, 4)
    total = 0.0
    for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        q, p = 1 / (1 + math.exp(-s)), 1 / (1 + math.exp(-t))
        cross = -p * math.log(q) - (1 - p) * math.log(1 - q)
        total += cross + p * math.log(p) + (1 - p) * math.log(1 - p)
    assert float(bce(student, teacher)) == pytest.approx(total / 12, rel=1e-4)


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_kl_is_the_divergence_of_softened_classes(temperature):
    student, teacher = pair(2, 3, 5)
    total = 0.0
    for s, t in zip(student.flatten(0, 1).tolist(), teacher.flatten(0, 1).tolist(), strict=True):
        q, p = softmax(s, temperature), softmax(t, temperature)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    expected = total / 6 * temperature**2
    assert float(kl(student, teacher, temperature)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize('name', LOSSES)
def test_equals_cost_nothing_and_training_closes_the_gap(name):
    student, teacher = pair(6, 4)
    assert float(LOSSES[name](teacher, teacher)) == pytest.approx(0, abs=1e-6)
    student.requires_grad_()
    first = float(LOSSES[name](student, teacher).detach())
    assert first > 0.1
    optimizer = torch.optim.SGD([student], lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        LOSSES[name](student, teacher).backward()
        optimizer.step()
    assert float(LOSSES[name](student, teacher).detach()) < 0.5 * first


@pytest.mark.parametrize('name', LOSSES)
def test_extreme_logits_stay_finite(name):
    student = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    value = LOSSES[name](student, torch.tensor([[-200.0, 200.0, 1.0]]))
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()


def test_a_target_weighs_selects_and_computes_in_float32():
    student, teacher = pair(2, 3)
    teacher.requires_grad_()
    wide = torch.cat([teacher, torch.full((2, 2), 99.0)], 1)
    target = Target('head', 'l1', weight=2.5, align=dict(dim=1, group='head.queries'))
    value = target.distance(student.bfloat16(), wide, torch.tensor([0, 1, 2]))
    assert value.dtype == torch.float32 and not value.requires_grad
    expected = 2.5 * (student.bfloat16().float() - teacher.detach()).abs().mean()
    assert float(value) == pytest.approx(float(expected))
    with pytest.raises(
        UserError, match=r'head is \(2, 3\) in the student and \(2, 5\) in the teach'
    ):
        target.distance(student, wide, None)
    with pytest.raises(
        UserError, match=r"align=\{'dim': 1, .* does not fit head of shape \(2, 3\)"
    ):
        target.distance(student, teacher, torch.tensor([0, 1, 3]))


def state(**kept: list[int]) -> PruneState:
    groups = {name: UnitGroup(name, 'query', 6, (), '') for name in kept}
    return PruneState(groups, {name: torch.tensor(k) for name, k in kept.items()})


def test_kept_entries_are_indices_into_the_teacher():
    target = Target('head', align=dict(dim=0, group='q'))
    student = state(q=[1, 4, 5])
    assert kept_entries(target, student, None).tolist() == [1, 4, 5]
    assert kept_entries(target, student, state(other=[0])).tolist() == [1, 4, 5]
    # a teacher that has lost the units 0 and 2 itself
    assert kept_entries(target, student, state(q=[1, 3, 4, 5])).tolist() == [0, 2, 3]
    assert kept_entries(target, None, None) is None
    assert kept_entries(target, state(other=[0]), None) is None
    assert kept_entries(Target('head'), student, None) is None
    for theirs in ([1, 3, 4], [0, 1, 4]):
        with pytest.raises(UserError, match="has units of 'q' that its teacher lacks"):
            kept_entries(target, student, state(q=theirs))


ROWS = [
    (3, 'targets is 3; it must be a list of dicts'),
    ([], r'targets is \[\]; it must be a list'),
    ([3], r'targets\[0\] is 3; it must be a dict'),
    ([dict(loss='mse')], r'targets\[0\].module is missing'),
    ([dict(module=3)], r'targets\[0\].module is 3; it must be the name'),
    ([dict(module='a', los='mse')], r'targets\[0\].los is not a key; valid are module, loss, key'),
    ([dict(module='a', loss='l3')], r"targets\[0\].loss is 'l3'; valid are mse, l1, bce, kl"),
    ([dict(module='a', weight=0)], r'targets\[0\].weight is 0; it must be a number > 0'),
    ([dict(module='a', weight='1')], r"targets\[0\].weight is '1'"),
    ([dict(module='a', weight=float('nan'))], r'targets\[0\].weight is nan'),
    ([dict(module='a', key=1.5)], r'targets\[0\].key is 1.5'),
    ([dict(module='a', name='')], r"targets\[0\].name is ''"),
    ([dict(module='a', temperature=2.0)], r"temperature is only for loss='kl', not for 'mse'"),
    ([dict(module='a', loss='kl', temperature=0)], r'temperature is 0; it must be a number > 0'),
    ([dict(module='a', align=dict(dim=0))], r"align is {'dim': 0}; it must be dict\(dim=2, group"),
    ([dict(module='a', align=dict(dim='0', group='q'))], 'align is'),
    ([dict(module='a.x'), dict(module='b.x')], r"\[1\]: there are two losses 'loss_distill_x'"),
]


@pytest.mark.parametrize(('targets', 'message'), ROWS)
def test_bad_targets_are_named(targets, message):
    with pytest.raises(UserError, match=message):
        read_targets(targets, 'targets')


def test_the_settings_check_the_block():
    valid = dict(targets=[dict(module='a', loss='kl', temperature=2)])
    for distill in ({}, dict(targets=None), valid):
        assert read_settings(RecoverySettings, dict(distill=distill), 'r').distill == distill
    with pytest.raises(UserError, match='recovery.distill is True; it must be a dict'):
        read_settings(RecoverySettings, dict(distill=True), 'recovery')
    with pytest.raises(UserError, match='recovery.distill.teacher is not a key; valid is targets'):
        read_settings(RecoverySettings, dict(distill=dict(teacher='x')), 'recovery')
    with pytest.raises(UserError, match=r"recovery.distill.targets\[0\].loss is 'l3'"):
        check = dict(distill=dict(targets=[dict(module='a', loss='l3')]))
        read_settings(RecoverySettings, check, 'recovery')
    check_distill({})


def test_labels():
    found = read_targets([dict(module='a.b'), dict(module='a', key='c'), dict(module=''),
                          dict(module='a.b', name='own')], 't')  # fmt: skip
    assert [target.label for target in found] == [
        f'loss_distill_{name}' for name in ('b', 'c', 'output', 'own')
    ]


def test_the_models_own_targets():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(UserError, match='targets is missing, and Sequential names none itself'):
        targets_for(model, None)
    model.distill_targets = [dict(module='0')]
    assert [target.module for target in targets_for(model, None)] == ['0']
    with pytest.raises(UserError, match=r"targets\[0\].module: the model has no module 'head'"):
        targets_for(model, [dict(module='head')])


def test_outputs_are_looked_up():
    x = torch.zeros(2)
    assert Target('m').select_from(x) is x
    assert (
        Target('m', key='a').select_from({'a': x}) is x
        and Target('m', key=1).select_from((0, x)) is x
    )
    with pytest.raises(UserError, match="'m' returns no 'b'; valid are a"):
        Target('m', key='b').select_from({'a': x})
    with pytest.raises(UserError, match="'m' returns no 2"):
        Target('m', key=2).select_from((x,))
    with pytest.raises(UserError, match='distill: m is a dict; key must name a tensor'):
        Target('m').select_from({'a': x})


def test_vads_targets_are_valid_and_aligned():
    pytest.importorskip('mmdet3d')
    from projects.vad.models import VAD

    found = {target.label: target for target in read_targets(VAD.distill_targets, 't')}
    assert found['loss_distill_all_cls_scores'].align['group'] == 'pts_bbox_head.query_embedding'
    assert len(found) == 4


def test_every_key_of_a_target_is_documented():
    page = (Path(__file__).parents[3] / 'docs' / 'prune_cfg.md').read_text(encoding='utf-8')
    table = page.partition("| target's key |")[2].partition('\n\n')[0].splitlines()[2:]
    found = {row.split('|')[1].strip(' `'): row.split('|')[3].strip(' `') for row in table}
    fields = {name: field.default for name, field in Target.__dataclass_fields__.items()}
    assert found.pop('module') == 'required' and fields.pop('module') is MISSING
    assert found == {name: repr(default) for name, default in fields.items()}

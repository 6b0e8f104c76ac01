"""The learning rate of recovery."""

import math

import pytest
import toy

from projects.prune_plugin.methods.schedules import OneShot
from projects.prune_plugin.training.lr_schedulers import warmup_constant, warmup_cosine


def test_warmup_then_cosine():
    factors = [warmup_cosine(step, 1000, 100) for step in range(1000)]
    assert factors[0] == pytest.approx(1 / 101)
    assert all(b > a for a, b in zip(factors[:100], factors[1:101], strict=True))
    assert factors[100] == 1.0
    assert all(b < a for a, b in zip(factors[100:], factors[101:], strict=False))
    assert factors[550] == pytest.approx(0.5)
    assert 0 < factors[-1] < 1e-5


@pytest.mark.parametrize('total', [1, 5, 30, 400, 500])
def test_short_runs_warm_up_over_a_tenth(total):
    factors = [warmup_cosine(step, total, 500) for step in range(total)]
    warmup = total // 10
    assert factors[warmup] == max(factors) == 1.0
    assert all(0 < factor <= 1 for factor in factors)
    if warmup:
        assert factors[warmup - 1] == pytest.approx(warmup / (warmup + 1))


def test_no_warmup():
    assert warmup_cosine(0, 10, 0) == 1.0
    assert warmup_cosine(5, 10, 0) == pytest.approx(0.5 * (1 + math.cos(math.pi / 2)))


def test_warmup_then_constant():
    assert [warmup_constant(step, 30, 500) for step in range(30)] == pytest.approx(
        [1 / 4, 2 / 4, 3 / 4] + [1] * 27
    )
    assert [warmup_constant(step, 5, 2) for step in range(5)] == pytest.approx(
        [1 / 3, 2 / 3, 1, 1, 1]
    )


@pytest.mark.parametrize(
    'kind, factor', [('WarmupCosineLR', warmup_cosine), ('WarmupConstantLR', warmup_constant)]
)
def test_the_scheduler_in_a_runner(tmp_path, kind, factor):
    seen = []

    from mmengine.hooks import Hook

    class Look(Hook):
        priority = 'VERY_HIGH'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            seen.append(runner.optim_wrapper.get_lr()['lr'][0])

    scheduler = dict(type=kind, end=4, warmup=3, by_epoch=True, convert_to_iter_based=True)
    run = toy.runner(tmp_path / 'work', epochs=4, param_scheduler=[scheduler])
    run.register_hook(Look())
    run.train()
    expected = [0.05 * factor(step, 12, 3) for step in range(12)]
    assert seen == pytest.approx(expected)


def test_one_shot():
    schedule = OneShot()
    assert schedule.ratios(0.3) == [0.3]

"""SparseGPT against the textbook: masks, weights, counts, and what it must refuse."""

import logging
import re

import pytest
import textbook
import torch
from mmengine.logging import MMLogger
from torch import nn

from projects.prune_plugin import SPARSIFIERS, UserError
from projects.prune_plugin.calibration import layer_inputs
from projects.prune_plugin.common.registry import build
from projects.prune_plugin.methods.optimal_brain_surgeon import damped_factor
from projects.prune_plugin.methods.sparsifiers import Magnitude, SparseGPT, Wanda
from projects.prune_plugin.methods.sparsifiers.sparsegpt import sparsegpt

WIDTH = 40


def correlated(*shape: int, seed: int = 0) -> torch.Tensor:
    """Inputs that tell of one another, as activations do."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(shape[-1], shape[-1], generator=generator) / shape[-1] ** 0.5
    x = torch.randn(shape, generator=generator)
    return x @ mix + 0.3 * torch.randn(shape, generator=generator)


def linear(outputs: int = 24, width: int = WIDTH, seed: int = 0, dtype=torch.float32) -> nn.Linear:
    layer = nn.Linear(width, outputs, bias=False, dtype=dtype)
    generator = torch.Generator().manual_seed(100 + seed)
    layer.weight.data.copy_(torch.randn(outputs, width, generator=generator))
    return layer


def pruned(method, layers: dict[str, nn.Module], inputs: list[torch.Tensor], ratios=0.5):
    """(weights, mask) of each layer after a method whose layers all read ``inputs``."""
    statistic = method.statistic(next(iter(layers.values())), inputs)
    weights = {name: layer.weight.detach().flatten(1) for name, layer in layers.items()}
    ratios = ratios if isinstance(ratios, dict) else dict.fromkeys(layers, ratios)
    return method.prune(weights, statistic, ratios)


def alike(found, expected):
    assert torch.equal(found[1], expected[1])
    assert torch.allclose(found[0].double(), expected[0], rtol=1e-3, atol=1e-4)
    assert (found[0][~found[1]] == 0).all()


@pytest.mark.parametrize(
    ('block_size', 'mask_block_size'),
    [
        (128, 128), (8, 8), (16, 4), (32, 32), (32, 16), (12, 12), (12, 4), (24, 8), (20, 10),
        (1, 1), (3, 1), (7, 7), (8, 24), (1, 128), (16, 48), (36, 18), (128, 1), (10, 40),
    ],
)  # fmt: skip
def test_blocks_as_in_the_textbook(block_size, mask_block_size):
    method = SparseGPT(block_size=block_size, mask_block_size=mask_block_size)
    inputs, layer = [correlated(3, 30, WIDTH), correlated(2, 30, WIDTH, seed=1)], linear()
    hessian = textbook.hessian_of(inputs)
    for ratio in (0.5, 0.83):
        expected = textbook.sparsegpt(layer.weight.data, hessian, ratio, None, mask_block_size)
        alike(pruned(method, {'a': layer}, inputs, ratio)['a'], expected)


@pytest.mark.parametrize('pattern', ['2:4', '4:8', '1:4', '3:5'])
@pytest.mark.parametrize('blocks', [1, 2, 5, 20])
def test_patterns_as_in_the_textbook(pattern, blocks):
    n, m = map(int, pattern.split(':'))
    method = SparseGPT(pattern, block_size=m * blocks, mask_block_size=m)
    inputs, layer = [correlated(90, WIDTH)], linear()
    expected = textbook.sparsegpt(
        layer.weight.data, textbook.hessian_of(inputs), pattern=(n, m)
    )  # fmt: skip
    found = pruned(method, {'a': layer}, inputs, 1 - n / m)['a']
    alike(found, expected)
    assert (found[1].view(24, WIDTH // m, m).sum(-1) == n).all()


@pytest.mark.parametrize('ratio', [0.01, 0.1, 1 / 3, 0.5, 0.77, 0.9, 0.98, 0.999])
@pytest.mark.parametrize('shape', [(1, 7), (5, 33), (24, 130)])
@pytest.mark.parametrize('kind', ['random', 'ties', 'zeros'])
def test_counts_are_exact(ratio, shape, kind):
    layer = linear(*shape)
    if kind != 'random':
        layer.weight.data = (layer.weight.data * (kind == 'ties')).round()
    for mask_block_size in (1, 4, 128):
        method = SparseGPT(block_size=16, mask_block_size=mask_block_size)
        _, keep = pruned(method, {'a': layer}, [correlated(50, shape[1])], ratio)['a']
        assert int((~keep).sum()) == round(ratio * keep.numel())


def test_stacked_layers_are_pruned_as_alone():
    inputs = [correlated(4, 20, WIDTH)]
    layers = {'q': linear(24, seed=1), 'k': linear(8, seed=2), 'v': linear(9, seed=3)}
    ratios = {'q': 0.5, 'k': 0.7, 'v': 0.25}
    for method in (SparseGPT(), SparseGPT(mask_block_size=8), Wanda()):
        together = pruned(method, layers, inputs, ratios)
        for name, layer in layers.items():
            weight, keep = pruned(method, {name: layer}, inputs, ratios[name])[name]
            assert torch.equal(together[name][1], keep)
            assert torch.allclose(together[name][0], weight, rtol=1e-4, atol=1e-6)
            assert together[name][0].shape == layer.weight.shape
            assert together[name][0].is_contiguous() and together[name][1].is_contiguous()


def test_weights_are_left_as_they_are():
    layer = linear()
    before = layer.weight.detach().clone()
    inputs = [correlated(50, WIDTH)]
    seen = inputs[0].clone()
    pruned(SparseGPT(), {'a': layer}, inputs)
    assert torch.equal(layer.weight, before) and torch.equal(inputs[0], seen)


def test_unused_inputs_go_first():
    x = correlated(60, WIDTH)
    x[:, [3, 17, 39]] = 0
    layer = linear()
    weight, keep = pruned(SparseGPT(), {'a': layer}, [x])['a']
    assert not keep[:, [3, 17, 39]].any() and int((~keep).sum()) == keep.numel() // 2
    bare = layer.weight.detach().clone()
    bare[:, [3, 17, 39]] = 0
    alike((weight, keep), textbook.sparsegpt(bare, textbook.hessian_of([x])))
    weight, keep = pruned(SparseGPT(), {'a': layer}, [torch.zeros(5, WIDTH)])['a']
    assert (weight == 0).all() and int((~keep).sum()) == keep.numel() // 2


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_weights(dtype):
    layer, x = linear(dtype=dtype), correlated(60, WIDTH)
    for method, reads in ((SparseGPT(), x), (Wanda(), x), (SparseGPT(), x.to(dtype))):
        weight, keep = pruned(method, {'a': layer}, [reads])['a']
        assert weight.dtype == dtype and int((~keep).sum()) == keep.numel() // 2
        assert (weight[~keep] == 0).all()
        same = linear()
        same.weight.data.copy_(layer.weight.data)
        full, mask = pruned(method, {'a': same}, [reads])['a']
        assert torch.equal(keep, mask) and torch.equal(weight, full.to(dtype))


@pytest.mark.parametrize(
    ('size', 'stride', 'padding'), [(3, 1, 1), (1, 1, 0), (3, 2, 1), (2, 2, 0)]
)
@pytest.mark.parametrize(
    'method', [SparseGPT(), Wanda(), SparseGPT('2:4')], ids=lambda m: str(m.pattern)
)
def test_convolutions_are_linear_layers_on_patches(method, size, stride, padding):
    conv = nn.Conv2d(4, 10, size, stride, padding)
    x = torch.randn(3, 4, 8, 9)
    rows = textbook.patches(x, size, stride, padding)
    flat = nn.Linear(4 * size * size, 10)
    flat.weight.data.copy_(conv.weight.data.flatten(1))
    found, expected = (
        pruned(method, {'a': layer}, [reads])['a'] for layer, reads in ((conv, x), (flat, rows))
    )
    assert torch.equal(found[1], expected[1])
    assert torch.allclose(found[0], expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('width', [1, 5, 64, 65, 150])
def test_gram_in_blocks(width, monkeypatch):
    monkeypatch.setattr(layer_inputs, 'BLOCK', 64)
    parts = [correlated(30, width, seed=seed) for seed in range(3)]
    found, rows = layer_inputs.input_gram(nn.Linear(width, 2), parts)
    x = torch.cat(parts).double()
    assert rows == 90 and torch.allclose(found.double(), x.T @ x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('method', [Wanda(), Magnitude()], ids=['Wanda', 'Magnitude'])
@pytest.mark.parametrize('pattern', [None, '2:4'])
def test_the_output_changes_least(method, pattern):
    x, layer = correlated(400, 64), linear(32, 64).requires_grad_(False)
    ours = build(SPARSIFIERS, dict(type='SparseGPT', pattern=pattern), 'key')
    other = build(SPARSIFIERS, dict(type=type(method).__name__, pattern=pattern), 'key')

    def error(weight) -> float:
        return float((x @ (layer.weight - weight).T).norm())

    weight, _ = pruned(ours, {'a': layer}, [x])['a']
    if other.reads_inputs:
        rival, _ = pruned(other, {'a': layer}, [x])['a']
    else:
        rival = layer.weight * other.keep_masks({'a': layer.weight}, 0.5)['a']
    assert error(weight) < 0.9 * error(rival)


# Damping


@pytest.fixture
def warnings(caplog):
    """What was logged as a warning."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield lambda: [r.message for r in caplog.records if r.levelno == logging.WARNING]
    logger.removeHandler(caplog.handler)


def indefinite(lowest: float) -> torch.Tensor:
    """A matrix with a mean diagonal of 1 and this lowest eigenvalue."""
    matrix = torch.eye(4)
    matrix[0, 1] = matrix[1, 0] = 1 - lowest
    return matrix


@pytest.mark.parametrize(('lowest', 'times'), [(0.5, 0), (-0.05, 1), (-0.5, 2), (-5.0, 3)])
def test_damped_harder_until_positive_definite(lowest, times, warnings):
    factor = damped_factor(indefinite(lowest), 0.01, 'fc1', of_inverse=True)
    assert len(warnings()) == times and all('fc1' in line for line in warnings())
    damped = indefinite(lowest) + 0.01 * 10**times * torch.eye(4)
    assert torch.allclose(factor.T @ factor, torch.linalg.inv(damped), rtol=1e-4, atol=1e-4)
    assert torch.equal(factor, factor.triu())


def test_damping_gives_up_after_three_times(warnings):
    matrix = indefinite(-50.0)
    before = matrix.clone()
    with pytest.raises(UserError, match='blocks.0.q, blocks.0.k: .* even at damping 10; raise'):
        damped_factor(matrix, 0.01, 'blocks.0.q, blocks.0.k', of_inverse=True)
    assert [re.search('at damping ([^;]+)', line)[1] for line in warnings()] == ['0.01', '0.1', '1']
    assert torch.equal(matrix, before)


def test_fewer_rows_than_inputs_need_damping_only():
    layer, x = linear(), correlated(5, WIDTH)
    alike(
        pruned(SparseGPT(), {'a': layer}, [x])['a'],
        textbook.sparsegpt(layer.weight.data, textbook.hessian_of([x])),
    )


@pytest.mark.parametrize('method', [SparseGPT(), Wanda()], ids=['SparseGPT', 'Wanda'])
@pytest.mark.parametrize('bad', [torch.nan, torch.inf])
def test_bad_inputs_name_the_layers(method, bad):
    x = correlated(20, WIDTH)
    x[3, 5] = bad
    with pytest.raises(UserError, match='^q, k reads NaN or infinite numbers in the calibration'):
        pruned(method, {'q': linear(), 'k': linear(seed=1)}, [x])


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        (dict(block_size=0), 'block_size is 0; it must be a whole number >= 1'),
        (dict(mask_block_size=1.5), 'mask_block_size is 1.5; it must be a whole number >= 1'),
        (dict(block_size=12, mask_block_size=8), 'mask_block_size is 8; it must divide block_size'),
        (dict(block_size=8, mask_block_size=12), 'mask_block_size is 12; it must divide'),
        (dict(damping=0), 'damping is 0; it must be a number > 0'),
        (dict(damping=True), 'damping is True'),
        (dict(damping='1'), "damping is '1'"),
        (dict(damping=float('nan')), 'damping is nan'),
        (dict(damping=float('inf')), 'damping is inf'),
        (dict(pattern='2:4', block_size=6, mask_block_size=6), 'block_size is 6; .* multiple of 4'),
    ],
)
def test_bad_keys(keys, message):
    with pytest.raises(UserError, match=message):
        build(SPARSIFIERS, dict(type='SparseGPT', **keys), 'prune_cfg.sparsifier')


def test_every_layer_is_cut_on_its_own_count():
    """One layer's many small weights don't take the other's share."""
    x = correlated(80, WIDTH)
    factor = damped_factor(x.T @ x, 0.01, 'a', of_inverse=True)
    small, large = linear(6).weight.data * 1e-3, linear(10, seed=4).weight.data
    done = sparsegpt([small, large], factor, [0.3, 0.6])
    assert [int((~keep).sum()) for _, keep in done] == [round(0.3 * 240), round(0.6 * 400)]


@pytest.mark.parametrize('seed', range(3))
def test_a_later_round_removes_exactly_its_share(seed):
    """Where earlier rounds took one more of a block than this one would, another block gives it back."""
    torch.manual_seed(seed)
    weight, factor = torch.randn(3, 7), torch.eye(7)
    before = sparsegpt([weight], factor, [0.94], mask_block_size=4)[0][1]
    assert int((~before).sum()) == 20
    for ratio, count in ((0.94, 20), (0.97, 20), (0.98, 21)):
        keep = sparsegpt([weight], factor, [ratio], mask_block_size=4, previous_masks=[before])[0][
            1
        ]
        assert int((~keep).sum()) == count
        assert not (keep & ~before).any()


# Refinement of the kept weights


def error_of(weight, target, hessian) -> float:
    lost = (weight - target).double()
    return float((lost @ hessian * lost).sum())


@pytest.mark.parametrize('pattern', [None, '2:4'])
def test_refined_weights_are_each_rows_least_squares(pattern):
    """With as many steps as inputs, conjugate gradients end at the solution; masks stay the paper's."""
    inputs, layer = [correlated(120, WIDTH)], linear()
    weight, keep = pruned(SparseGPT(pattern), {'a': layer}, inputs)['a']
    refined, same = pruned(SparseGPT(pattern, refinement=2 * WIDTH), {'a': layer}, inputs)['a']
    assert torch.equal(keep, same) and (refined[~keep] == 0).all()
    hessian = textbook.hessian_of(inputs).double()
    target = layer.weight.detach().double()
    for row, dense, kept in zip(refined, target, keep, strict=True):
        solution = torch.linalg.solve(hessian[kept][:, kept], hessian[kept] @ dense)
        torch.testing.assert_close(row[kept].double(), solution, rtol=2e-3, atol=2e-3)
    assert error_of(refined, target, hessian) < 0.98 * error_of(weight, target, hessian)


def test_every_step_of_refinement_comes_nearer():
    inputs, layer = [correlated(120, WIDTH)], linear()
    hessian = textbook.hessian_of(inputs).double()
    errors = []
    for steps in (0, 1, 2, 4, 8, 16):
        weight, _ = pruned(SparseGPT(refinement=steps), {'a': layer}, inputs, 0.8)['a']
        errors.append(error_of(weight, layer.weight.detach(), hessian))
    for before, after in zip(errors, errors[1:], strict=False):
        assert after <= before * (1 + 1e-6)
    assert errors[-1] < 0.95 * errors[0]


def test_refinement_of_inputs_that_say_nothing():
    for inputs in ([torch.zeros(5, WIDTH)], [torch.ones(3, WIDTH)]):
        weight, keep = pruned(SparseGPT(refinement=15), {'a': linear()}, inputs, 0.9)['a']
        assert torch.isfinite(weight).all() and (weight[~keep] == 0).all()


def test_refinement_must_be_a_count():
    with pytest.raises(UserError, match='refinement is -1; it must be a whole number >= 0'):
        SparseGPT(refinement=-1)

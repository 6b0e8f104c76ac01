"""Targets from the dense model: what its layers read, the least-squares solution, and a whole run."""

from functools import partial

import brute_force as brute
import pytest
import textbook
import torch
from cases import BY_NAME
from test_criteria import samples_for
from test_sequential import Chain, batches, calls_on, hooks_of
from test_sparsegpt import WIDTH, alike, correlated, linear
from torch import nn

from projects.prune_plugin import UserError, WeightPruner
from projects.prune_plugin.calibration.sequential import layers_that_run_later, run_layer_by_layer
from projects.prune_plugin.methods.pruners.layer_progress import LayerProgress
from projects.prune_plugin.methods.sparsifiers import SparseGPT

STEPS = [('a', 'b'), ('after',), ('last',)]


@pytest.fixture
def chain():
    torch.manual_seed(0)
    return Chain().eval()


def halving(model, seen):
    """A visit that halves the weights and notes what they read."""

    def visit(layers, inputs, dense):
        seen[layers] = [x.clone() for x in inputs], [x.clone() for x in dense]
        for name in layers:
            model.get_submodule(name).weight.mul_(0.5)

    return visit


def reads(model, name, inputs, run=None):
    """What a layer reads in plain forward passes."""
    read = []
    layer = model.get_submodule(name)
    handle = layer.register_forward_pre_hook(
        lambda m, args, kwargs: read.append((args[0] if args else kwargs['input']).clone()),
        with_kwargs=True,
    )
    with torch.no_grad():
        for x in inputs:
            (run or model)(x)
    handle.remove()
    return read


def test_dense_calls_read_as_if_nothing_was_changed(chain):
    """Bit for bit, and the other calls read what they do without them."""
    expected = {name: reads(chain, name, batches()) for name in ('a', 'b', 'after', 'last')}
    state = {name: value.clone() for name, value in chain.state_dict().items()}
    alone, seen = {}, {}
    run_layer_by_layer(chain, calls_on(chain, batches()), STEPS, halving(chain, alone))
    changed = {name: value.clone() for name, value in chain.state_dict().items()}
    chain.load_state_dict(state)
    calls = calls_on(chain, batches())
    run_layer_by_layer(chain, calls, STEPS, halving(chain, seen), calls)
    assert list(seen) == STEPS
    for layers, (inputs, dense) in seen.items():
        assert alone[layers][1] == [] and len(dense) == 3
        assert all(torch.equal(a, b) for a, b in zip(inputs, alone[layers][0], strict=True))
        for name in layers:
            assert all(torch.equal(a, b) for a, b in zip(dense, expected[name], strict=True))
    assert all(torch.equal(value, changed[name]) for name, value in chain.state_dict().items())
    assert hooks_of(chain) == 0


def test_other_batches_may_run_dense(chain):
    others = [x + 1 for x in batches(2)]
    expected, seen = reads(chain, 'last', others), {}
    calls = calls_on(chain, batches())
    run_layer_by_layer(chain, calls, STEPS, halving(chain, seen), calls_on(chain, others))
    assert all(torch.equal(a, b) for a, b in zip(seen[('last',)][1], expected, strict=True))


def test_a_layer_that_runs_twice_in_a_row_is_dense_both_times(chain):
    expected, seen = reads(chain, 'after', batches()), {}
    calls = calls_on(chain, batches())
    run_layer_by_layer(chain, calls, [('twice',), ('after',)], halving(chain, seen), calls)
    assert all(torch.equal(a, b) for a, b in zip(seen[('after',)][1], expected, strict=True))


def test_a_layer_that_runs_again_later(chain):
    def again(x):
        return chain.idle(chain.twice(chain(x)))

    calls = [partial(again, x) for x in batches()]
    steps = [('a', 'b'), ('twice',), ('after',), ('idle',)]
    expected, seen = reads(chain, 'idle', batches(), again), {}
    with pytest.raises(UserError, match='^twice runs again in some .* dense_targets'):
        run_layer_by_layer(chain, calls, steps, lambda *_: None, calls)
    assert hooks_of(chain) == 0
    later = layers_that_run_later(chain, steps, calls[0])
    assert later == {'twice'} and hooks_of(chain) == 0
    run_layer_by_layer(chain, calls, steps, halving(chain, seen), calls, later)
    assert all(torch.equal(a, b) for a, b in zip(seen[('idle',)][1], expected, strict=True))


def test_an_exception_leaves_the_changed_weights(chain):
    seen = {}
    visit = halving(chain, seen)
    before = chain.a.weight.clone()

    def fails(layers, inputs, dense):
        if layers == ('after',):
            raise ZeroDivisionError
        visit(layers, inputs, dense)

    def boom(x):
        chain.a(x)
        chain.b(x)
        raise ZeroDivisionError

    for dense in (calls_on(chain, batches()), [partial(boom, x) for x in batches()]):
        with torch.no_grad():
            chain.a.weight.copy_(before)
        with pytest.raises(ZeroDivisionError):
            run_layer_by_layer(chain, calls_on(chain, batches()), STEPS, fails, dense)
        assert torch.equal(chain.a.weight, before * 0.5) and hooks_of(chain) == 0


def test_autocast_runs_dense_calls_with_the_weights_as_they_were(chain):
    chain.requires_grad_()
    calls, read = calls_on(chain, batches()[:1]), []

    def visit(layers, inputs, dense):
        read.append((inputs[0].clone(), dense[0].clone()))
        for name in layers:
            chain.get_submodule(name).weight.zero_()
            chain.get_submodule(name).bias.zero_()

    with torch.autocast('cpu', torch.bfloat16):
        expected = reads(chain, 'after', batches()[:1])[0]
        run_layer_by_layer(chain, calls, [('twice',), ('after',)], visit, calls)
    assert torch.equal(read[1][1], expected) and not torch.equal(read[1][0], expected)
    assert read[1][0].abs().sum() == 0


def held_solution(weight, x, dense, damping):
    """argmin of ``|dense W' - x V'|^2 / rows + d |V - W|^2`` as one augmented system, in float64."""
    x, dense, weight = x.double(), dense.double(), weight.double()
    d = damping * (x.T @ x / len(x)).diagonal().mean()
    left = torch.cat([x / len(x) ** 0.5, d.sqrt() * torch.eye(x.shape[1], dtype=x.dtype)])
    right = torch.cat([dense @ weight.T / len(x) ** 0.5, d.sqrt() * weight.T])
    return torch.linalg.lstsq(left, right).solution.T


@pytest.mark.parametrize('strength', [0.4, 1.0])
@pytest.mark.parametrize(('parts', 'known'), [(1, 1), (3, 3), (3, 1), (3, 2)])
def test_targets_are_the_least_squares_solution(strength, parts, known):
    """On the batches whose dense inputs are known; masks and updates are by all batches."""
    x = correlated(180, WIDTH).chunk(parts)
    dense = [rows + 0.3 * correlated(len(rows), WIDTH, seed=7 + i) for i, rows in enumerate(x)]
    layer = linear()
    method = SparseGPT(dense_targets=strength, damping=0.02)
    statistic = method.statistic(layer, list(x), dense[:known])
    weight = layer.weight.detach()
    found = method.prune({'a': weight}, statistic, {'a': 0.6})['a']
    solution = held_solution(weight, torch.cat(x[:known]), torch.cat(dense[:known]), 30 * 0.02)
    target = weight.double() * (1 - strength) + solution * strength
    alike(found, textbook.sparsegpt(target, textbook.hessian_of(list(x), 0.02), 0.6))


def test_the_same_inputs_change_nothing():
    layer, inputs = linear(), [correlated(90, WIDTH)]
    weights = {'a': layer.weight.detach()}
    plain, shared = SparseGPT(), SparseGPT(dense_targets=1)
    expected = plain.prune(weights, plain.statistic(layer, inputs), {'a': 0.5})['a']
    found = shared.prune(weights, shared.statistic(layer, inputs, inputs), {'a': 0.5})['a']
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize('key', ['dense_targets', 'dense_share'])
@pytest.mark.parametrize('value', [-0.1, 1.5, True, '0.5', None, float('nan')])
def test_values_that_are_refused(key, value):
    with pytest.raises(UserError, match=f'^{key} is .* in \\[0, 1\\]'):
        SparseGPT(**{key: value})


@pytest.mark.parametrize(
    ('keys', 'runs'),
    [(dict(dense_targets=0), 3), (dict(dense_share=0), 3), (dict(dense_share=0.25), 5)],
)
def test_batches_that_run_through_the_dense_model(keys, runs):
    """Beside the three batches and a first look: that share of them, rounded up, and a second look."""
    count = []
    model = BY_NAME['vit'].dense()
    data = brute.calibration_data(samples_for('vit'), 3)

    def loss(model, batch):
        count.append(len(batch['inputs']))
        return brute.loss_of(model, batch)

    WeightPruner(dict(type='SparseGPT', **keys)).sparsify(model, lambda _: data, loss)
    assert len(data.batches) == 3 and len(count) == runs + 1


def prune(family, ratio=0.8, progress=None, **method):
    model = BY_NAME[family].dense()
    data = brute.calibration_data(samples_for(family), 3)
    pruner = WeightPruner(dict(type='SparseGPT', **method), budget=dict(ratio=ratio))
    masks = pruner.sparsify(model, lambda _: data, brute.loss_of, progress=progress)
    return model, masks


def drift(family, model):
    """Squared distance of the outputs from the dense model's, over the dense model's own."""
    dense = BY_NAME[family].dense()
    total = of = 0.0
    data = brute.calibration_data(samples_for(family), 3)
    last = [m for m in dense.modules() if isinstance(m, nn.Linear)][-1]
    path = next(name for name, module in dense.named_modules() if module is last)
    outputs: dict[nn.Module, list] = {}
    for one in (model, dense):
        handle = one.get_submodule(path).register_forward_hook(
            lambda m, a, y, one=one: outputs.setdefault(one, []).append(y)
        )
        with torch.no_grad():
            for batch in brute.batches(samples_for(family), data):
                brute.loss_of(one.eval(), batch)
        handle.remove()
    for y, was in zip(outputs[model], outputs[dense], strict=True):
        total, of = total + float((y - was).square().sum()), of + float(was.square().sum())
    return total / of


@pytest.mark.parametrize(
    ('family', 'targets'), [('llama-gqa', 'layer'), ('vit', 'layer'), ('llama-gqa', 'stream')]
)
def test_a_model_stays_closer_to_the_dense_one(family, targets):
    plain, masks = prune(family, dense_targets=0)
    better, own = prune(family, dense_targets=1.0, dense_share=1.0, targets=targets)
    assert drift(family, better) < drift(family, plain)
    for name, keep in own.items():
        assert int((~keep).sum()) == int((~masks[name]).sum())
        assert (better.get_parameter(name)[~keep] == 0).all()


def test_killed_and_resumed(tmp_path, monkeypatch):
    whole, masks = prune('llama-gqa', dense_targets=0.5)
    original, calls = SparseGPT.prune, []

    def fails(*args):
        calls.append(args)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(SparseGPT, 'prune', fails)
    with pytest.raises(KeyboardInterrupt):
        prune('llama-gqa', progress=LayerProgress(tmp_path / 'p', {}), dense_targets=0.5)
    monkeypatch.setattr(SparseGPT, 'prune', original)
    model, again = prune('llama-gqa', progress=LayerProgress(tmp_path / 'p', {}), dense_targets=0.5)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
    assert all(torch.equal(keep, again[name]) for name, keep in masks.items())

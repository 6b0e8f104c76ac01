"""The benchmarks' plain implementations against definitions worked out the long way."""

import copy

import pytest
import torch
from prune_plugin.tiny_models import VOCABULARY, llama
from torch import nn
from torch.nn.functional import cross_entropy

from tools.benchmarks.plain import cutting, driver, global_taylor, iterative
from tools.benchmarks.plain.magnitude import prune_magnitude
from tools.benchmarks.plain.sparsegpt import SparseGPT
from tools.benchmarks.plain.wanda import Wanda


def layer_and_rows(out=8, width=16):
    """A layer, and correlated inputs for it."""
    torch.manual_seed(0)
    rows = torch.randn(4, 16, width) @ torch.randn(width, width)
    return nn.Linear(width, out, bias=False), rows


def surgeon(weight, rows, ratio, block, pattern):
    """Optimal brain surgeon with every inverse computed afresh, in float64, from left to right."""
    weight, rows = weight.double(), rows.flatten(0, 1).double()
    hessian = rows.T @ rows
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    gone = torch.zeros_like(weight, dtype=torch.bool)
    together = pattern[1] if pattern else block
    for j in range(weight.shape[1]):
        inverse = torch.inverse(hessian[j:, j:])
        if j % together == 0:
            ends = range(j, j + together)
            free = torch.stack([torch.inverse(hessian[k:, k:])[0, 0] for k in ends])
            scores = weight[:, j : j + together].square() / free
            if pattern:
                chosen = scores.argsort(1).argsort(1) < pattern[1] - pattern[0]
            else:
                chosen = scores <= scores.flatten().sort().values[round(ratio * scores.numel()) - 1]
            gone[:, j : j + together] = chosen
        for row in gone[:, j].nonzero()[:, 0].tolist():
            weight[row, j:] -= weight[row, j] / inverse[0, 0] * inverse[:, 0]
            weight[row, j] = 0
    return weight


@pytest.mark.parametrize(
    ('block_size', 'ratio', 'pattern'),
    [(16, 0.5, None), (8, 0.5, None), (8, 0.75, None), (8, 0.5, (2, 4)), (16, 0.75, (1, 4))],
)
def test_sparsegpt_is_optimal_brain_surgery(block_size, ratio, pattern):
    layer, rows = layer_and_rows()
    weight = layer.weight.detach().clone()
    method = SparseGPT(layer, block_size=block_size)
    for part in rows:
        method.add(part[None])
    method.prune(ratio, pattern)
    expected = surgeon(weight, rows, ratio, block_size, pattern)
    torch.testing.assert_close(layer.weight.detach().double(), expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(layer.weight == 0, expected == 0)


def test_sparsegpt_beats_leaving_weights_out():
    layer, rows = layer_and_rows()
    dense = layer(rows)
    left_out = copy.deepcopy(layer)
    method = SparseGPT(layer)
    method.add(rows)
    method.prune(0.5)
    left_out.weight.data *= layer.weight != 0
    error, plain = ((new(rows) - dense).square().sum() for new in (layer, left_out))
    assert error < 0.7 * plain


def test_sparsegpt_drops_what_reads_an_unused_input():
    layer, rows = layer_and_rows()
    rows[..., 3] = 0
    method = SparseGPT(layer)
    method.add(rows)
    method.prune(0.25)
    assert (layer.weight[:, 3] == 0).all()
    assert layer.weight.isfinite().all()


def test_wanda_row_by_row():
    layer, rows = layer_and_rows()
    weight = layer.weight.detach().clone()
    method = Wanda(layer)
    for part in rows:
        method.add(part[None])
    method.prune(0.5)
    for new, old in zip(layer.weight, weight, strict=True):
        scores = [
            abs(float(w)) * float(rows[..., j].double().norm()) for j, w in enumerate(old.double())
        ]
        kept = sorted(sorted(range(16), key=scores.__getitem__)[8:])
        assert new.nonzero()[:, 0].tolist() == kept
        assert torch.equal(new[kept], old[kept])


@pytest.mark.parametrize('method', [Wanda, SparseGPT])
def test_patterns_leave_n_of_m(method):
    layer, rows = layer_and_rows()
    job = method(layer)
    job.add(rows)
    job.prune(0.5, (1, 4))
    assert ((layer.weight != 0).view(8, 4, 4).sum(-1) == 1).all()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return llama().eval()


def sequences(number=3, length=12):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(VOCABULARY, (1, length), generator=generator) for _ in range(number)]


def test_magnitude_per_layer(model):
    weights = [layer.weight.detach().clone() for layer in driver.linears(model.model.layers)]
    prune_magnitude(model, 0.25)
    for layer, old in zip(driver.linears(model.model.layers), weights, strict=True):
        gone = layer.weight == 0
        assert int(gone.sum()) == round(0.25 * old.numel())
        assert old[gone].abs().max() <= old[~gone].abs().min()


class Recorder:
    """Notes what it is shown, and halves the layer."""

    seen: dict

    def __init__(self, layer):
        self.layer = layer
        self.seen[layer] = []

    def add(self, inputs):
        self.seen[self.layer].append(inputs.clone())

    def prune(self, ratio, pattern):
        self.layer.weight.data *= ratio


def test_driver_shows_inputs_made_by_pruned_blocks(model):
    Recorder.seen = {}
    original = copy.deepcopy(model)
    driver.block_by_block(model, sequences(), Recorder, 0.5)
    # A model whose block 0 is done and whose block 1 isn't makes the inputs of block 1.
    half = copy.deepcopy(original)
    for new, old in zip(
        driver.linears(model.model.layers[0]), driver.linears(half.model.layers[0]), strict=True
    ):
        old.weight.data.copy_(new.weight)
    seen = []
    half.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _, a: seen.append(a[0]))
    with torch.no_grad():
        for sequence in sequences():
            half(sequence)
    for a, b in zip(seen, Recorder.seen[model.model.layers[1].mlp.down_proj], strict=True):
        torch.testing.assert_close(a, b)
    assert len(Recorder.seen) == 7 * 3


def test_importance_and_cost_unit_by_unit(model):
    scores = global_taylor.importance(model, sequences())
    costs = cutting.unit_costs(model)
    names = dict(model.named_parameters())
    for sequence in sequences():
        logits = model(sequence).logits[0, :-1]
        cross_entropy(logits, sequence[0, 1:]).backward()
    head = 64 // 8
    for layer in range(3):
        at = f'model.layers.{layer}'
        for unit in range(2):
            q, k = (slice(unit * w, (unit + 1) * w) for w in (4 * head, head))
            parts = [('q_proj', q), ('k_proj', k), ('v_proj', k), ('o_proj', (slice(None), q))]
            total, count = 0.0, 0
            for name, where in parts:
                weight = names[f'{at}.self_attn.{name}.weight']
                total += (weight[where] * weight.grad[where]).abs().sum().item()
                count += weight[where].numel()
            assert scores[layer, 'attention'][unit] == pytest.approx(total, rel=1e-4)
            assert costs[layer, 'attention'] == count
        for unit in (0, 50, 95):
            parts = [('gate_proj', unit), ('up_proj', unit), ('down_proj', (slice(None), unit))]
            total = 0.0
            for name, where in parts:
                weight = names[f'{at}.mlp.{name}.weight']
                total += (weight[where] * weight.grad[where]).abs().sum().item()
            assert scores[layer, 'mlp'][unit] == pytest.approx(total, rel=1e-4)
        assert costs[layer, 'mlp'] == 3 * 64


@pytest.mark.parametrize('choose', [global_taylor.global_choice, global_taylor.uniform_choice])
def test_cut_is_as_good_as_zeroed(model, choose):
    kept = choose(model, global_taylor.importance(model, sequences()), 0.2)
    dense = sum(p.numel() for p in model.parameters())
    zeroed = copy.deepcopy(model)
    for key, parts in cutting.unit_slices(zeroed).items():
        for layer, dim, width in parts:
            lines = (kept[key][:, None] * width + torch.arange(width)).flatten()
            gone = torch.ones(layer.weight.shape[dim], dtype=torch.bool)
            gone[lines] = False
            layer.weight.data[gone if dim == 0 else (slice(None), gone)] = 0
    cutting.cut(model, kept)
    left = sum(p.numel() for p in model.parameters())
    assert 1 - left / dense == pytest.approx(0.2, abs=0.02)
    with torch.no_grad():
        for sequence in sequences():
            torch.testing.assert_close(model(sequence).logits, zeroed(sequence).logits)


def test_iterating_keeps_zeros(model):
    batches = iter([torch.cat(sequences(2)) for _ in range(4)])
    gone = None
    for _number, done in iterative.iterate(model, [(0.3, 1), (0.5, 3)], batches, 1e-3):
        now = torch.cat([mask.flatten() for mask in iterative.zeros(model).values()])
        if gone is not None:
            assert now[gone].all()
            assert done == 'pruned' or torch.equal(now, gone)
        gone = now
    assert float(gone.float().mean()) == pytest.approx(0.5, abs=1e-3)
    assert next(batches, None) is None

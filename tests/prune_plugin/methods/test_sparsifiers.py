"""Weight-level pruning: exact counts, patterns, ties, scopes."""

import brute_force as brute
import pytest
import torch
from cases import BY_NAME, SPARSIFIER_ROWS
from test_criteria import samples_for
from torch import nn

from projects.prune_plugin import SPARSIFIERS, UserError, WeightPruner, build_pruner
from projects.prune_plugin.common.registry import build
from projects.prune_plugin.methods.weight_masks import (
    keep_largest,
    keep_n_of_m,
    parse_pattern,
)


def calibration_of(family: str):
    """Seven samples in batches of three, for methods that read inputs."""
    return lambda settings: brute.calibration_data(samples_for(family))


def test_keep_largest_by_hand():
    scores = torch.tensor([[3.0, 1.0, 2.0], [6.0, 5.0, 4.0]])
    assert keep_largest(scores, 0.5).tolist() == [[False, False, False], [True, True, True]]
    assert keep_largest(scores, 0.0).all()
    assert int(keep_largest(scores, 0.99).sum()) == 0  # round(0.99 * 6) = 6


@pytest.mark.parametrize('ratio', [0.1, 0.25, 1 / 3, 0.5, 0.9])
@pytest.mark.parametrize('kind', ['random', 'ties', 'zeros'])
def test_counts_are_exact_whatever_the_ties(ratio, kind):
    scores = {
        'random': torch.rand(7, 11),
        'ties': torch.randint(0, 3, (7, 11)).float(),
        'zeros': torch.zeros(7, 11),
    }[kind]
    keep = keep_largest(scores, ratio)
    assert int((~keep).sum()) == round(ratio * 77)
    assert keep.all() or scores[keep].min() >= scores[~keep].max()
    assert torch.equal(keep, keep_largest(scores, ratio))


@pytest.mark.parametrize(('n', 'm'), [(2, 4), (1, 4), (3, 4), (4, 8), (1, 2)])
@pytest.mark.parametrize('shape', [(6, 16), (4, 8, 3, 3)])
def test_n_of_m_by_blocks(n, m, shape):
    scores = torch.rand(shape)
    keep = keep_n_of_m(scores, n, m, 'w')
    rows, kept = scores.reshape(shape[0], -1), keep.reshape(shape[0], -1)
    for row, mask in zip(rows.tolist(), kept.tolist(), strict=True):
        for start in range(0, len(row), m):
            block = row[start : start + m]
            chosen = {i for i in range(m) if mask[start + i]}
            assert chosen == set(sorted(range(m), key=block.__getitem__)[m - n :])


def test_n_of_m_counts_with_ties():
    keep = keep_n_of_m(torch.ones(5, 8), 2, 4, 'w')
    assert (keep.view(5, 2, 4).sum(-1) == 2).all()


def test_n_of_m_needs_rows_of_whole_blocks():
    with pytest.raises(UserError, match='pattern 2:4 does not divide head, whose rows hold 6'):
        keep_n_of_m(torch.rand(3, 6), 2, 4, 'head')


@pytest.mark.parametrize('bad', ['4:2', '0:4', '4:4', '2-4', '2:4:8', 'a', 24, '', '-1:2'])
def test_bad_patterns(bad):
    with pytest.raises(UserError, match=r"prune_cfg.sparsifier.pattern is .* valid is 'N:M'"):
        WeightPruner(sparsifier=dict(type='Magnitude', pattern=bad))


def test_good_patterns():
    assert parse_pattern(None) is None and parse_pattern('2:4') == (2, 4)


#: Layers that are left whole: rows of 147 weights; weights that run without their layer.
EXCLUDE = {'resnet18-channel': ['conv1'], 'torch_encoder': [r'.*self_attn']}


@pytest.mark.parametrize(
    ('row', 'family'),
    [
        pytest.param(row, family, id='-'.join((family, *row.values())))
        for family in ('vit', 'resnet18-channel', 'torch_encoder', 'llama-gqa')
        for row in SPARSIFIER_ROWS
        # A CNN small enough for methods that read inputs is in test_sparsify.py.
        if family != 'resnet18-channel' or not SPARSIFIERS.get(row['type']).reads_inputs
    ],
)
def test_sparsifiers_on_models(row, family):
    model = BY_NAME[family].dense()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    exclude = EXCLUDE.get(family, [])
    pruner = WeightPruner(row, budget=dict(type='weights', ratio=0.5), exclude=exclude)
    masks = pruner.sparsify(model, calibration_of(family), brute.loss_of)
    after = model.state_dict()
    for name, tensor in before.items():
        if name not in masks:
            assert torch.equal(after[name], tensor)
        elif row['type'] in ('SparseGPT', 'ALPS'):
            assert (after[name][~masks[name]] == 0).all() and not torch.equal(after[name], tensor)
        else:
            assert torch.equal(after[name], tensor * masks[name])
    weights = {name: p for name, p in model.named_parameters() if name in masks}
    assert masks.keys() == weights.keys() and all(p.dim() > 1 for p in weights.values())
    assert all(m.shape == weights[name].shape for name, m in masks.items())
    total = sum(p.numel() for p in weights.values())
    assert abs(sum(int((~m).sum()) for m in masks.values()) - 0.5 * total) <= len(masks)
    if row.get('scope') == 'global':
        kept = torch.cat([weights[n].abs()[m] for n, m in masks.items()])
        gone = torch.cat([before[n].abs()[~m] for n, m in masks.items()])
        assert kept.min() >= gone.max()
        assert len({float(m.float().mean()) for m in masks.values()}) > 1
    else:
        assert all(abs(float(m.float().mean()) - 0.5) < 1e-2 for m in masks.values())
    if 'pattern' in row:
        for keep in masks.values():
            assert (keep.flatten(1).unflatten(1, (-1, 4)).sum(-1) == 2).all()


def test_which_weights_are_prunable():
    from projects.prune_plugin.structure.prunable_weights import prunable_weights

    found = set(prunable_weights(BY_NAME['torch_encoder'].dense()))
    assert found == {
        f'layers.{i}.{name}'
        for i in range(2)
        for name in (
            'self_attn.in_proj_weight', 'self_attn.out_proj.weight', 'linear1.weight',
            'linear2.weight',
        )
    }  # fmt: skip
    vit = set(prunable_weights(BY_NAME['vit'].dense()))
    assert 'pos_embed' not in vit and 'patch_embed.proj.weight' in vit


def test_patterns_and_ratios_must_agree():
    pattern = dict(type='Magnitude', pattern='2:4')
    with pytest.raises(UserError, match=r'ratio is 0.4, but pattern 2:4 removes 0.5'):
        WeightPruner(pattern, budget=dict(ratio=0.4))
    assert WeightPruner(pattern).budget.ratio == 0.5


def test_include_and_exclude():
    model = BY_NAME['vit'].dense()
    assert set(WeightPruner(include=[r'.*fc1']).sparsify(model)) == {
        f'blocks.{i}.mlp.fc1.weight' for i in range(3)
    }
    for key in ('include', 'exclude'):
        with pytest.raises(
            UserError, match=f"prune_cfg.{key}: 'nothing' matches nothing; prunable weights"
        ):
            WeightPruner(**{key: ['nothing']}).sparsify(model)
    with pytest.raises(UserError, match='leaves no weight to prune'):
        WeightPruner(exclude=['.*']).sparsify(model)


def test_bad_weight_pruners():
    with pytest.raises(UserError, match="prune_cfg.budget.type is 'params'; a WeightPruner's"):
        WeightPruner(budget=dict(type='params', ratio=0.5))
    with pytest.raises(UserError, match="scope is 'block'; valid are layer, global"):
        build(SPARSIFIERS, dict(type='Magnitude', scope='block'), 'key')


@pytest.mark.parametrize('ratio', [0.5, 0.95])
@pytest.mark.parametrize(
    'sparsifier', [dict(type='SparseGPT'), dict(type='Wanda'), dict(type='Magnitude')], ids=str
)
def test_zeros_of_a_pruned_checkpoint_stay_zeros(sparsifier, ratio):
    """At a higher ratio as well as at a lower one; the masks count them, and a layer of zeros is free."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16), nn.Linear(16, 4))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.mul_(torch.rand_like(layer.weight) > 0.9)
        model[3].weight.zero_()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    data = [torch.randn(8, 16) for _ in range(4)]
    pruner = build_pruner(
        dict(type='WeightPruner', sparsifier=sparsifier, budget=dict(ratio=ratio), exclude=['3'])
    )
    loss = lambda model, batch: model(batch).square().mean()  # noqa: E731
    plan = pruner.plan(model, data, loss=loss)
    pruned = pruner.apply(model, plan, data, loss=loss)
    weights = dict(model.named_parameters())
    zeros = total = 0
    for name, keep in pruned.masks.items():
        gone = before[name] == 0
        assert not weights[name][gone].any() and not keep[gone].any()
        assert torch.equal(weights[name] == 0, ~keep) or sparsifier['type'] == 'SparseGPT'
        zeros, total = zeros + int((weights[name] == 0).sum()), total + keep.numel()
    assert zeros / total >= max(0.85, ratio - 0.02)
    slack = 0.05 if sparsifier['type'] == 'SparseGPT' else 1e-9  # inputs that are never used
    assert pruned.zeros == pytest.approx(zeros / total, abs=slack)

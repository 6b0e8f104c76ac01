"""Refill: element masks counted into channels, against a count of its own."""

import numpy as np
import pytest
import torch
import toy
from test_iterative_loop import ROUNDS, config, kept_units, run

from projects.prune_plugin import StructuredPruner, UserError
from projects.prune_plugin.checkpoints.checkpoint_file import load_file
from projects.prune_plugin.methods.saliency import remaining_shares
from projects.prune_plugin.structure.unit_group import named_tensors


@pytest.fixture(scope='module')
def resnet():
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    return timm.create_model('resnet18', num_classes=10)


def pruner(ratio: float, fillback_rate: float = 0.0, **kwargs) -> StructuredPruner:
    return StructuredPruner(
        units=[dict(type='BottleneckChannels')], criterion=dict(type='Remain'),
        allocator=dict(type='Refill', fillback_rate=fillback_rate),
        budget=dict(type='units', ratio=ratio), **kwargs,
    )  # fmt: skip


@pytest.mark.parametrize('ratio', [0.2, 0.488, 0.9])
@pytest.mark.parametrize('fillback_rate', [0.0, 0.25])
def test_channels_of_a_resnet_as_counted_from_the_element_masks(resnet, ratio, fillback_rate):
    plan = pruner(ratio, fillback_rate).plan(resnet)
    convs = {g.name: resnet.get_submodule(g.cuts[0].name.rpartition('.')[0]) for g in plan.groups}
    weights = {name: conv.weight.detach().numpy() for name, conv in convs.items()}
    assert len(weights) == 8 and all(w.ndim == 4 for w in weights.values())
    everything = np.sort(np.concatenate([np.abs(w).ravel() for w in weights.values()]))
    threshold = everything[round(ratio * len(everything))]  # the smallest that stays
    for group in plan.groups:
        ones = (np.abs(weights[group.name]) >= threshold).reshape(group.size, -1)
        filled = ones.sum() / ones.shape[1]
        wanted = max(1, int(filled + (group.size - filled) * fillback_rate))
        kept = plan.state.kept[group.name]
        assert len(kept) == wanted, group.name
        order = np.sort(ones.sum(1))[::-1]
        assert ones.sum(1)[kept.numpy()].min() >= order[wanted - 1]


def test_shares_are_fractions_of_the_weights_that_compute_a_unit(resnet):
    groups, _ = pruner(0.5).discover(resnet)
    shares = remaining_shares(groups, named_tensors(resnet), 0.5)
    sizes = [g.size * named_tensors(resnet)[g.cuts[0].name][0].numel() for g in groups]
    left = sum(float(s.mean()) * n for s, n in zip(shares, sizes, strict=True))
    assert left == pytest.approx(sum(sizes) / 2, abs=1)


def test_rounds_of_refill(tmp_path):
    """What has gone counts as gone; the counts are those of the trained weights."""
    prune_cfg = dict(
        units=[dict(type='FFNNeurons')], criterion=dict(type='Remain'),
        allocator=dict(type='Refill'), budget=dict(type='units', ratio=0.6),
    )  # fmt: skip
    run(config(tmp_path, prune_cfg, ROUNDS))
    before = list(range(16))
    for state in (1, 2):
        weight = load_file(tmp_path / f'epoch_{2 * state}.pth')['state_dict']['mlp.fc1.weight']
        ratio = 1 - 0.4 ** (state / 2)
        flat = weight.abs().flatten()
        keep = torch.zeros(len(flat), dtype=torch.bool)
        keep[flat.sort(descending=True).indices[: len(flat) - round(ratio * len(flat))]] = True
        ones = keep.view(16, toy.FEATURES).sum(1)
        kept = kept_units(tmp_path / f'state_{state:02d}.pth')
        assert len(kept) == int(ones.sum() / toy.FEATURES)
        assert set(kept) <= set(before)
        gone = [unit for unit in before if unit not in kept]
        assert ones[kept].min() >= ones[gone].max()
        before = kept


@pytest.mark.parametrize('value', [1, -0.1, True, '0'])
def test_refused(value):
    with pytest.raises(UserError, match='prune_cfg.allocator.fillback_rate is'):
        pruner(0.5, value)

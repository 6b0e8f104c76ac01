"""What must hold for single weights of any model under any settings: exact numbers of zeros."""

import re
from copy import deepcopy

import pytest
import torch
from hypothesis import event, given
from hypothesis import strategies as st
from random_models import FAMILIES, Drawn
from torch import Tensor, nn

from projects.prune_plugin import UserError, build_pruner
from projects.prune_plugin.calibration.data import CalibrationData
from projects.prune_plugin.checkpoints.checkpoint_file import load_file, load_weights, save_file
from projects.prune_plugin.checkpoints.packed_masks import pack_masks, unpack_masks

pytestmark = pytest.mark.properties
PATTERNS = ('1:2', '2:4', '1:3', '3:4', '1:4')
READING = ('Wanda', 'SparseGPT')


def output_loss(model: nn.Module, batch: Tensor) -> Tensor:
    return getattr(model(batch), 'logits', model(batch)).square().mean()


def calibration(drawn: Drawn):
    """The model's inputs as calibration data."""
    loader = dict(dataset=list(drawn.inputs()), collate_fn=dict(type='default_collate'))
    return lambda settings: CalibrationData(loader, **settings.sampling)


def prunable(model: nn.Module) -> dict[str, Tensor]:
    """Weights with rows, but no embeddings."""
    named = model.named_parameters()
    return {name: p for name, p in named if p.dim() > 1 and 'embed' not in name}


def unfit(model: nn.Module, sparsifier: dict) -> set[str]:
    """Weights that a method can't prune: rows that M doesn't divide, inputs that nothing shows."""
    weights, found = prunable(model), set()
    if 'pattern' in sparsifier:
        m = int(sparsifier['pattern'].split(':')[1])
        found |= {name for name, weight in weights.items() if weight[0].numel() % m}
    if sparsifier['type'] in READING:
        for name, module in model.named_modules():
            if getattr(module, 'groups', 1) > 1 or isinstance(module, nn.MultiheadAttention):
                found |= {weight for weight in weights if weight.startswith(f'{name}.')}
    return found


@st.composite
def sparse(draw: st.DrawFn, model: nn.Module) -> dict:
    """A ``prune_cfg`` for single weights of a model; mostly one that suits it."""
    names = list(prunable(model))
    sparsifier = dict(type=draw(st.sampled_from(('Magnitude', 'Magnitude', *READING))))
    if draw(st.integers(0, 3)) == 0:
        sparsifier['pattern'] = draw(st.sampled_from(PATTERNS))
    elif sparsifier['type'] == 'Magnitude':
        sparsifier['scope'] = draw(st.sampled_from(('layer', 'global')))
    if sparsifier['type'] == 'SparseGPT':
        block, step = draw(st.sampled_from(((12, 12), (24, 4), (128, 128), (12, 24))))
        sparsifier.update(block_size=block, mask_block_size=step)
    fractions = st.floats(0.01, 0.99)
    budget = {} if 'pattern' in sparsifier else dict(ratio=draw(fractions))
    exclude = set(draw(st.lists(st.sampled_from(names), max_size=2)))
    exclude |= unfit(model, sparsifier) if draw(st.integers(0, 9)) else set()
    own = [] if 'pattern' in sparsifier else draw(st.lists(st.sampled_from(names), max_size=2))
    return dict(
        type='WeightPruner',
        sparsifier=sparsifier,
        budget=budget,
        exclude=[f'{re.escape(name)}$' for name in sorted(exclude)],
        layer_ratios={re.escape(name): draw(fractions) for name in own if name not in exclude},
        calibration=dict(num_samples=2, batch_size=1),
    )


def check_zeros(prune_cfg: dict, masks: dict[str, Tensor], ratios: dict[str, float]) -> None:
    """The number of zeros is the one asked for, in each row, layer or group of layers."""
    sparsifier = prune_cfg['sparsifier']
    if 'pattern' in sparsifier:
        n, m = map(int, sparsifier['pattern'].split(':'))
        assert all((keep.flatten(1).reshape(-1, m).sum(1) == n).all() for keep in masks.values())
    elif sparsifier.get('scope') == 'global':
        for ratio in set(ratios.values()):
            together = [masks[name] for name in masks if ratios[name] == ratio]
            total = sum(keep.numel() for keep in together)
            assert sum(int((~keep).sum()) for keep in together) == round(ratio * total)
    elif sparsifier['type'] == 'Wanda':
        for name, keep in masks.items():
            rows = keep.flatten(1)
            assert ((~rows).sum(1) == round(ratios[name] * rows.shape[1])).all()
    else:
        for name, keep in masks.items():
            assert int((~keep).sum()) == round(ratios[name] * keep.numel())


def check_weights(kind: str, before: dict, after: dict, masks: dict[str, Tensor]) -> None:
    """Zeros are where the masks say; nothing else has changed but what a method may update."""
    for name, tensor in after.items():
        keep = masks.get(name)
        if keep is None:
            assert torch.equal(tensor, before[name]), name
            continue
        assert not tensor[~keep].any() and tensor.isfinite().all()
        if kind != 'SparseGPT':
            assert torch.equal(tensor[keep], before[name][keep])


def all_ratios(prune_cfg: dict, names: list[str], ratio: float) -> dict[str, float]:
    """The fraction to remove of each weight."""
    own = prune_cfg['layer_ratios'].items()
    return {
        name: next((r for pattern, r in own if re.match(pattern, name)), ratio) for name in names
    }


@pytest.mark.parametrize('family', FAMILIES)
@given(draws=st.data())
def test_weights(family, draws, tmp_path_factory):
    drawn = draws.draw(FAMILIES[family]())
    model, data = drawn.build(seed=1), calibration(drawn)
    weights = prunable(model)
    prune_cfg = draws.draw(sparse(model))
    kind = prune_cfg['sparsifier']['type']
    before = deepcopy(dict((*model.named_parameters(), *model.named_buffers())))
    try:
        pruner = build_pruner(prune_cfg)
        pruner.check(model, data, output_loss)
        masks = pruner.sparsify(model, data, output_loss)
    except UserError as error:
        event('refused')
        check_refused(prune_cfg, model, str(error))
        assert all(torch.equal(before[name], t) for name, t in model.named_parameters())
        return
    excluded = [p.removesuffix('$') for p in prune_cfg['exclude']]
    chosen = [name for name in weights if re.escape(name) not in excluded]
    assert sorted(masks) == sorted(chosen)
    check_zeros(prune_cfg, masks, all_ratios(prune_cfg, chosen, pruner.budget.ratio))
    after = dict((*model.named_parameters(), *model.named_buffers()))
    check_weights(kind, before, after, masks)
    again = unpack_masks(pack_masks(masks))
    assert all(torch.equal(again[name], keep.cpu()) for name, keep in masks.items())
    path = tmp_path_factory.mktemp('sparse') / 'sparse.pth'
    save_file(dict(state_dict=model.state_dict(), masks=pack_masks(masks)), path)
    fresh = drawn.build(seed=9)
    load_weights(fresh, load_file(path), path)
    assert torch.equal(drawn.run(fresh), drawn.run(model))
    check_next_round(drawn, prune_cfg, pruner, model, masks)


def check_next_round(drawn, prune_cfg, pruner, model, masks) -> None:
    """A further round removes exactly what it is to, and gives nothing back."""
    if 'pattern' in prune_cfg['sparsifier'] or prune_cfg['layer_ratios']:
        return
    ratio = (pruner.budget.ratio + 1) / 2
    more = pruner.sparsify(model, calibration(drawn), output_loss, ratio, previous=masks)
    check_zeros(prune_cfg, more, all_ratios(prune_cfg, list(masks), ratio))
    assert not any((more[name] & ~masks[name]).any() for name in masks)


def check_refused(prune_cfg: dict, model: nn.Module, said: str) -> None:
    """Refused is only what can't be pruned, or has a block size that the pattern doesn't divide."""
    sparsifier = prune_cfg['sparsifier']
    excluded = {pattern.removesuffix('$') for pattern in prune_cfg['exclude']}
    assert '\n' not in said
    if 'must be a multiple of' in said:
        assert sparsifier['block_size'] % int(sparsifier['pattern'].split(':')[1])
    elif 'leaves no weight to prune' in said:
        assert excluded == set(map(re.escape, prunable(model)))
    else:
        assert any(re.escape(name) not in excluded for name in unfit(model, sparsifier)), said

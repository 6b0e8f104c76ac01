"""What a round builds on: zeros that stay, rewinding, the history, the newest whole checkpoint."""

import csv
import json
from copy import deepcopy

import pytest
import torch
from rich.console import Console
from torch import nn

from projects.prune_plugin import UserError, WeightPruner
from projects.prune_plugin.checkpoints.checkpoint_file import newest_checkpoint
from projects.prune_plugin.methods.sparsifiers.sparsegpt import sparsegpt
from projects.prune_plugin.methods.sparsifiers.wanda import Wanda
from projects.prune_plugin.workflows.iterate.machine import rewind
from projects.prune_plugin.workflows.iterate.runner_per_round import check_zeros
from projects.prune_plugin.workflows.reports.rounds import print_history, write_history
from projects.prune_plugin.workflows.round_record import Record, Row
from projects.prune_plugin.workflows.run_fingerprint import RunFingerprint


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))


def zeros(masks) -> int:
    return sum(int((~keep).sum()) for keep in masks.values())


@pytest.mark.parametrize('scope', ['layer', 'global'])
def test_what_was_pruned_stays_pruned_and_counts_are_exact(scope):
    """Though training made some of the others zero, and others tiny."""
    net = model()
    pruner = WeightPruner(
        sparsifier=dict(type='Magnitude', scope=scope), budget=dict(ratio=0.6),
        schedule=dict(type='Geometric', share=0.2),
    )  # fmt: skip
    before = None
    for number in pruner.rounds:
        masks = pruner.sparsify(net, ratio=number.ratio, previous=before)
        sizes = [w.numel() for w in masks.values()]
        if scope == 'layer':
            assert [int((~m).sum()) for m in masks.values()] == [
                round(number.ratio * size) for size in sizes
            ]
        assert zeros(masks) == pytest.approx(number.ratio * sum(sizes), abs=1)
        weights = dict(net.named_parameters())
        for name, keep in masks.items():
            assert not weights[name][~keep].any()
            assert before is None or not (keep & ~before[name]).any()
        with torch.no_grad():
            for name, keep in masks.items():  # "training": half of the rest becomes zero
                weights[name].mul_((torch.rand(keep.shape) < 0.5) & keep)
        before = masks


def test_ratios_of_single_layers_rise_with_the_others():
    pruner = WeightPruner(
        budget=dict(ratio=0.8), layer_ratios={'2': 0.4}, schedule=dict(type='Steps', ratios=[0.4, 0.8])
    )  # fmt: skip
    masks = pruner.sparsify(model(), ratio=0.4)
    assert [int((~m).sum()) for m in masks.values()] == [round(0.4 * 600), round(0.2 * 300)]
    masks = pruner.sparsify(model(), ratio=0.8)
    assert [int((~m).sum()) for m in masks.values()] == [round(0.8 * 600), round(0.4 * 300)]


@pytest.mark.parametrize(('block', 'mask_block'), [(16, 16), (32, 8), (128, 128)])
def test_sparsegpt_keeps_what_went_before(block, mask_block):
    """Its update of later columns would bring zeros back, if it didn't know of them."""
    weight, x = torch.randn(24, 64), torch.randn(200, 64)
    x[:, 1:] += 0.9 * x[:, :-1]
    inverse = torch.linalg.inv(x.T @ x / 200 + 0.01 * torch.eye(64))
    factor = torch.linalg.cholesky(inverse, upper=True)
    keep = None
    for ratio in (0.3, 0.35, 0.6, 0.9):
        before = keep
        earlier = None if before is None else [before]
        ((weight, keep),) = sparsegpt([weight], factor, [ratio], None, block, mask_block, earlier)
        assert int((~keep).sum()) == round(ratio * weight.numel())
        assert not weight[~keep].any()
        assert before is None or not (keep & ~before).any()


def test_sparsegpt_takes_any_zeros_of_another_method():
    """All in its last columns: more than the quota of their block."""
    factor = torch.eye(64)
    before = torch.ones(8, 64, dtype=torch.bool)
    before[:, 48:] = False
    ((new, keep),) = sparsegpt([torch.randn(8, 64)], factor, [0.3], None, 16, 16, [before])
    assert not new[:, 48:].any() and not keep[:, 48:].any()


def test_wanda_prefers_what_went_before_to_inputs_that_are_never_used():
    weight, rms = torch.randn(4, 10), torch.ones(10)
    rms[:5] = 0  # scores of 0
    before = torch.ones(4, 10, dtype=torch.bool)
    before[:, 7:] = False
    done = Wanda().prune({'w': weight}, rms, {'w': 0.3}, {'w': before})
    assert torch.equal(done['w'][1], before)


def test_rewinding_keeps_the_mask_and_forgets_the_training():
    initial = model()
    trained = deepcopy(initial)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1)
    masks = {'0.weight': torch.rand(30, 20) < 0.5}
    rewind(trained, initial.state_dict(), masks)
    for name, parameter in trained.named_parameters():
        expected = initial.get_parameter(name) * masks.get(name, torch.tensor(1))
        assert torch.equal(parameter, expected)


def test_zeros_that_training_lost_are_an_error(tmp_path):
    from projects.prune_plugin.training.hooks.mask_hook import pack_masks

    keep = torch.tensor([[True, False], [True, True]])
    fine = dict(state_dict={'w': torch.ones(2, 2) * keep}, masks=pack_masks({'w': keep}))
    check_zeros(fine, fine, tmp_path)
    grown = dict(fine, state_dict={'w': torch.ones(2, 2)})
    with pytest.raises(RuntimeError, match='masked weights of w are not zero'):
        check_zeros(grown, fine, tmp_path)
    other = dict(fine, masks=pack_masks({'w': torch.ones_like(keep)}))
    with pytest.raises(RuntimeError, match='training has changed the masks'):
        check_zeros(other, fine, tmp_path)


def test_recovery_as_the_requirement_counts_it():
    def recovered(before: float, after: float, better: str) -> float | None:
        row = Row(1, 0.1, 0.1, {'a': before}, {'a': after})
        return Record({}, 1, None, {'a': better}, [row]).recovered(row, 'a')

    assert recovered(32.45, 28.67, 'min') == pytest.approx(0.117, abs=6e-4)
    assert recovered(40.0, 60.0, 'max') == pytest.approx(0.5)
    assert recovered(-2.0, -1.0, 'max') == pytest.approx(0.5)
    assert recovered(0.0, 1.0, 'max') is None


def example() -> Record:
    rows = [
        Row(1, 0.1, 0.1, {'ppl': 32.45}, {'ppl': 28.67}, 'round_01/latest.pth', True),
        Row(2, 0.19, 0.19, {'ppl': 33.0}),
    ]
    return Record(dict(checkpoint='a.pth'), 22, {'ppl': 27.66}, {'ppl': 'min'}, rows)


def test_history_files_and_table(tmp_path):
    pytest.importorskip('matplotlib')
    history = example()
    history.save(tmp_path / 'history.json')
    assert (
        Record.load(tmp_path / 'history.json', RunFingerprint(dict(checkpoint='a.pth'))) == history
    )
    write_history(history, tmp_path)
    with open(tmp_path / 'history.csv') as file:
        table = list(csv.DictReader(file))
    assert float(table[0]['ppl recovery']) == pytest.approx(3.78 / 32.45)
    assert table[1]['ppl after training'] == '' and table[1]['ppl after pruning'] == '33.0'
    assert (tmp_path / 'history.png').stat().st_size > 5000
    console = Console(width=100, record=True, file=open(tmp_path / 'out', 'w'))
    print_history(history, console)
    text = console.export_text()
    assert '2 of 22 done' in text
    for cell in (
        '27.66',
        '10.00 %',
        '32.45',
        '28.67',
        '11.6 %',
        '19.00 %',
        '+19.3 % against dense',
    ):
        assert cell in text, cell


def test_a_history_without_metrics(tmp_path):
    history = Record({}, 2, None, {}, [Row(1, 0.1, 0.1, None)])
    write_history(history, tmp_path)
    assert (tmp_path / 'history.csv').read_text().splitlines() == [
        'iteration,ratio,sparsity', '1,0.1,0.1',
    ]  # fmt: skip
    print_history(history, Console(file=open(tmp_path / 'out', 'w')))


@pytest.mark.parametrize('text', ['', '{', '[]', '{"rows": 3}', '{"rows": [{"round": 1}]}'])
def test_a_damaged_history_is_named(tmp_path, text):
    path = tmp_path / 'history.json'
    path.write_text(text)
    with pytest.raises(UserError, match=r'--resume: .*history.json cannot be read'):
        Record.load(path, RunFingerprint({}))


def test_another_run_is_not_gone_on_with(tmp_path):
    path = tmp_path / 'history.json'
    example().save(path)
    with pytest.raises(UserError, match='of a run with another checkpoint'):
        Record.load(path, RunFingerprint(dict(checkpoint='b.pth')))
    json.loads(path.read_text())


def test_the_newest_whole_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    for number in (2, 9, 10):
        torch.save(dict(state_dict={'w': torch.ones(3)}), tmp_path / f'epoch_{number}.pth')
    torch.save(dict(state_dict={'w': torch.ones(3)}), tmp_path / 'vit_pruned.pth')
    assert newest_checkpoint(tmp_path).name == 'epoch_10.pth'
    path = tmp_path / 'epoch_10.pth'
    path.write_bytes(path.read_bytes()[:100])
    assert newest_checkpoint(tmp_path).name == 'epoch_9.pth'

"""The losses against numbers of the original project."""

import json
from pathlib import Path

import losses_setup as setup
import pytest
import torch

FORMULA = json.loads((Path(__file__).parent / 'losses_formula.json').read_text())


def assert_losses(found, expected):
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert float(found[key]) == pytest.approx(value, rel=1e-5, abs=1e-7), key


def reference_case(batch):
    """Head output, samples and the original's answers; batch 1 is the first sample of two."""
    case = json.loads((setup.REFERENCE / 'losses_tiny.json').read_text())
    case = case[f'head_loss_synth_bs{batch}']
    truths = torch.load(setup.REFERENCE / 'gt_tiny.pt', weights_only=True)['gt']
    samples = []
    for i in range(batch):
        gt = truths[i]
        ego = {
            k: torch.tensor(case[f'ego_{k}'])[i, 0] for k in ('fut_trajs', 'fut_masks', 'fut_cmd')
        }
        ego = {k: v.view(-1, 2) if k == 'fut_trajs' else v.flatten() for k, v in ego.items()}
        agents = gt['boxes'], gt['labels'], gt['attr_labels']
        samples.append(
            setup.sample(*agents, gt['map_labels'], gt['map_bbox'], gt['map_shift_v2'], ego)
        )
    preds = setup.det_input().synth_preds(2)
    preds = {
        k: v if v is None else v[:batch] if k == 'ego_fut_preds' else v[:, :batch]
        for k, v in preds.items()
    }
    return preds, samples, case


def recorded(loss):
    """A list that gets the matches that a loss is given."""
    kept = []
    loss.register_forward_pre_hook(lambda module, args: kept.append(args[3]))
    return kept


def rows(matches, samples, count):
    """The matches as the reference lists them: by layer, then sample, each by query."""
    firsts = [0]
    for data in samples[:-1]:
        firsts.append(firsts[-1] + count(data))
    listed = []
    for layer in range(len(matches.query)):
        for i, first in enumerate(firsts):
            own = matches.batch[layer] == i
            row = dict(query=matches.query[layer, own], gt=matches.gt[layer, own] - first)
            if matches.order is not None:
                row['order'] = matches.order[layer, own]
            listed.append({k: v.tolist() for k, v in row.items()})
    return listed


@setup.needs_reference
@pytest.mark.parametrize('batch', [1, 2])
def test_losses_and_assignments_are_the_originals(batch):
    preds, samples, case = reference_case(batch)
    loss = setup.build()
    agents = recorded(loss.detection)
    elements = recorded(loss.map)
    assert_losses(loss(preds, samples, setup.CODE_WEIGHTS, setup.MAP_CODE_WEIGHTS), case['losses'])
    found = [
        dict(head='det', **row)
        for row in rows(agents[0], samples, lambda s: len(s.gt_instances_3d))
    ]
    found += [
        dict(head='map', **row) for row in rows(elements[0], samples, lambda s: len(s.gt_map))
    ]
    assert found == case['assignment']


def test_losses_of_formula_made_input():
    """Expected numbers are what the original project's own functions gave for this input."""
    samples = [setup.formula_sample(0), setup.formula_sample(1, agents=3, elements=2)]
    losses = setup.build()(
        setup.formula_preds(), samples, setup.CODE_WEIGHTS, setup.MAP_CODE_WEIGHTS
    )
    assert_losses(losses, FORMULA['losses'])

"""What is particular to VAD's units: crossing cuts, heights of points, predictions, costs, usage."""

from copy import deepcopy

import pytest
import tiny_vad as tiny
import torch
from cases import random_state
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from vad_unit_cases import (
    BY_NAME,
    HEAD,
    KINDS,
    PROPORTIONAL,
    TRANSFORMER,
    arguments,
    build,
    two_frames,
)

from projects.prune_plugin import PruneState, StructuredPruner, UserError, compose, mask, slim
from projects.prune_plugin.calibration.data import CalibrationData
from projects.prune_plugin.checkpoints.checkpoint_file import model_meta, save_file
from projects.prune_plugin.checkpoints.model_loading import load_model
from projects.prune_plugin.evaluation.example_inputs import example_input
from projects.prune_plugin.evaluation.flops import module_flops
from projects.prune_plugin.methods.budgets.costs import product_cost
from projects.prune_plugin.methods.budgets.flops import flops_cost
from projects.prune_plugin.methods.budgets.latency import LatencyBudget
from projects.prune_plugin.structure.units import discover
from projects.vad.models.attention import spatial

TSA = f'{TRANSFORMER}.encoder.layers.0.attentions.0'
CAMERAS = f'{TRANSFORMER}.encoder.layers.0.attentions.1.deformable_attention'


def state_of(groups, generator) -> PruneState:
    """Any number of units of each group, at random."""
    kept = {}
    for group in groups:
        low = max(1, group.least)
        number = int(torch.randint(low, group.size + 1, (), generator=generator))
        kept[group.name] = torch.randperm(group.size, generator=generator)[:number].sort().values
    return PruneState({g.name: g for g in groups}, kept)


def kept_alone(groups, **kept) -> PruneState:
    """A state of the groups whose kept units are given."""
    chosen = {group.name: group for group in groups if group.name in kept}
    assert chosen.keys() == kept.keys()
    return PruneState(chosen, {name: torch.tensor(units) for name, units in kept.items()})


@pytest.mark.parametrize('name', KINDS)
def test_every_kind_matters(name):
    """Masking half of the units moves what the model says of the others."""
    case = BY_NAME[name]
    dense, state = case.dense(), case.state('half')
    before = case.run_masked(dense, state)
    after = case.run_masked(mask(dense, state), state)
    assert (after - before).abs().max() > 1e-3


@pytest.mark.parametrize('name', ['all', 'all-his', 'ObjectQueries', 'MapQueries', 'MotionModes'])
@pytest.mark.parametrize('level', ['half', 'one'])
def test_predictions_of_mask_and_slim_are_the_same(name, level):
    """In a masked model a query that is to go has no score, so it is never taken before others."""
    case = BY_NAME[name]
    state = case.state(level)
    masked = two_frames(mask(case.dense(), state), 'predict')
    slimmed = two_frames(slim(case.dense(), state), 'predict')
    modes = state.kept.get(f'{HEAD}.motion_mode_query', torch.arange(6))
    for (one,), (other,) in zip(masked, slimmed, strict=True):
        found = one.pred_instances_3d[one.pred_instances_3d.scores_3d > 0]
        assert len(found) == len(other.pred_instances_3d) > 0
        for key, expected in other.pred_instances_3d.items():
            value = found[key]
            value = value[:, modes] if key in ('trajs_3d', 'mode_scores') else value
            torch.testing.assert_close(*map(plain, (value, expected)), rtol=1e-4, atol=1e-4)
        lines = one.pred_map[one.pred_map.scores > 0]
        assert len(lines) == len(other.pred_map) > 0
        for key, expected in other.pred_map.items():
            torch.testing.assert_close(lines[key], expected, rtol=1e-4, atol=1e-4)
        paths = one.pred_ego.fut_preds, other.pred_ego.fut_preds
        torch.testing.assert_close(*paths, rtol=1e-4, atol=1e-4)


def plain(boxes):
    return getattr(boxes, 'tensor', boxes)


def test_a_slim_checkpoint_loads_with_the_dense_config(tmp_path):
    case = BY_NAME['all-his']
    state = case.state('half')
    slimmed = slim(case.dense(), state)
    meta = {**model_meta(slimmed), 'prune_state': state.to_dict()}
    save_file(dict(meta=meta, state_dict=slimmed.state_dict()), tmp_path / 'slim.pth')
    cfg = tiny.config(**arguments(1, his=True))
    loaded = load_model(cfg, str(tmp_path / 'slim.pth'))
    assert loaded.prior_state.digest() == state.digest()
    assert torch.equal(case.run(loaded.model), case.run(slimmed))


# Heads and points cut the same rows


def test_heads_and_points_are_rows_and_columns():
    case = BY_NAME['heads_and_points']
    dense, heads, points = case.dense(), [0, 2, 3], [1]
    state = kept_alone(case.groups(), **{TSA: heads, f'{TSA}.sampling_offsets': points})
    before = dense.get_submodule(TSA)
    after = slim(deepcopy(dense), state).get_submodule(TSA)
    assert (after.num_heads, after.num_points) == (3, 1)
    # Rows are ordered heads x BEVs x levels x points (x 2); there are 4 x 2 x 1 x 4 of them.
    rows = [(h * 2 + bev) * 4 + p for h in heads for bev in range(2) for p in points]
    for name, numbers in (('sampling_offsets', 2), ('attention_weights', 1)):
        index = torch.tensor([row * numbers + n for row in rows for n in range(numbers)])
        for key in ('weight', 'bias'):
            old, new = (getattr(m.get_submodule(name), key) for m in (before, after))
            assert torch.equal(new, old[index])
    values = torch.cat([torch.arange(8 * h, 8 * h + 8) for h in heads])
    assert torch.equal(after.value_proj.weight, before.value_proj.weight[values])
    assert torch.equal(after.output_proj.weight, before.output_proj.weight[:, values])


@pytest.mark.parametrize('heights', [4, 2])
def test_remaining_points_keep_their_heights(heights, monkeypatch):
    """Point p of a pillar looks around height ``p % heights``; one of each height goes at a time."""
    model = build(**{f'{TRANSFORMER}.encoder.num_points_in_pillar'.replace('.', '__'): heights})
    groups, _ = discover(model, BY_NAME['SamplingPoints'].finders())
    units = {4: [1], 2: [0, 3]}[heights]
    state = kept_alone(groups, **{f'{CAMERAS}.sampling_offsets': units})
    kept = [unit * heights + height for unit in units for height in range(heights)]
    seen = []

    def spy(value, shapes, locations, weights, rows=None):
        seen.append((locations, weights, shapes))
        return sampling(value, shapes, locations, weights, rows)

    sampling = spatial.deformable_sampling
    monkeypatch.setattr(spatial, 'deformable_sampling', spy)
    inner = model.get_submodule(CAMERAS)
    calls = []
    inner.register_forward_pre_hook(lambda module, args: calls.append(args))
    two_frames(model)
    two_frames(slim(deepcopy(model), state))
    (dense, weights, shapes), (cut, cut_weights, _) = seen[0], seen[2]
    assert cut.shape[-2] == len(kept) == inner.num_points - heights * (8 // heights - len(units))
    torch.testing.assert_close(cut, dense[..., kept, :])
    left = weights[..., kept]
    torch.testing.assert_close(cut_weights, left / left.sum((-2, -1), keepdim=True))
    query, _, hits, _ = calls[0]
    offsets = inner.sampling_offsets(query.flatten(0, 1)).detach()[hits.query]
    offsets = offsets.view(len(offsets), 4, tiny.LEVELS, 8, 2)
    for place, point in enumerate(kept):
        around = hits.points[:, point % heights]
        for level, (height, width) in enumerate(shapes):
            cells = torch.tensor([width, height])
            expected = around[:, None] + offsets[:, :, level, point] / cells
            torch.testing.assert_close(cut[:, :, level, place], expected)


@pytest.mark.parametrize(
    'order',
    [
        ('DeformableHeads', 'SamplingPoints', 'heads_and_points'),
        ('SamplingPoints', 'DeformableHeads', 'heads_and_points'),
        ('MotionModes', 'BranchNeurons', 'MotionModes'),
        ('BranchNeurons', 'MotionModes', 'BranchNeurons'),
    ],
    ids=lambda order: order[0],
)
def test_kinds_pruned_one_after_the_other_compose(order):
    """Cuts that cross are told in indices of the dense model, whichever came first."""
    case = BY_NAME['all']
    model, state = case.dense(), None
    for seed, name in enumerate(order):
        groups, _ = discover(model, BY_NAME[name].finders())
        step = random_state(groups, 'half', seed)
        model, state = slim(model, step), compose(state, step)
    direct = slim(case.dense(), state)
    assert all(torch.equal(x, model.state_dict()[n]) for n, x in direct.state_dict().items())
    after = case.run(model)
    assert torch.equal(case.run(direct), after)
    masked = case.run_masked(mask(case.dense(), state), state)
    assert (masked - after).abs().max() < 1e-5 * masked.abs().max()


# Costs


@pytest.mark.parametrize('name', [*KINDS, 'heads_and_points', 'all'])
def test_predicted_parameters_are_those_of_the_slim_model(name):
    case, generator = BY_NAME[name], torch.Generator().manual_seed(5)
    cost = product_cost(case.dense(), case.groups())
    for _ in range(4 if name == 'all' else 2):
        state = state_of(case.groups(), generator)
        counts = torch.tensor([len(state.kept[group.name]) for group in case.groups()])
        slimmed = slim(case.dense(), state)
        assert cost.total(counts) == pytest.approx(sum(p.numel() for p in slimmed.parameters()))


def spent(model) -> int:
    return sum(module_flops(model, example_input(model)).values())


@pytest.mark.parametrize('name', [*KINDS, 'heads_and_points', 'all-his'])
def test_predicted_flops_are_those_of_the_slim_model(name):
    """To the last one, but for queries: looking at each other costs their number squared.

    It is taken to cost their number, so more is saved than was promised; never less.
    """
    case, generator = BY_NAME[name], torch.Generator().manual_seed(6)
    dense = case.dense()
    cost, before = flops_cost(dense, case.groups(), example_input(dense)), spent(dense)
    state = state_of(case.groups(), generator)
    counts = torch.tensor([len(state.kept[group.name]) for group in case.groups()])
    after = spent(slim(dense, state))
    promised, saved = before - cost.total(counts), before - after
    assert saved > 0
    if name in PROPORTIONAL or name == 'heads_and_points':
        assert promised == pytest.approx(saved)
    else:
        assert 0.75 * saved <= promised <= saved


def test_own_flops_add_up():
    """The encoder is called past the transformer's own forward, LaneNet runs its list by hand."""
    model = BY_NAME['all-his'].dense().requires_grad_(False)
    found = module_flops(model, example_input(model))
    _, inputs = example_input(model)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**inputs)
    assert sum(found.values()) == counter.get_total_flops()
    cells = tiny.BEV_H * tiny.BEV_W
    assert found[f'{TSA}.value_proj'] == 2 * cells * tiny.DIMS * tiny.DIMS
    points = tiny.LINES * 20
    assert found[f'{HEAD}.lane_encoder.layer_seq.lmlp_0.mlp.0'] == 2 * points * tiny.DIMS * 16


def test_every_group_can_be_timed():
    """Each owner runs by itself at other widths, on the inputs that it had in the whole model."""
    case = BY_NAME['all-his']
    model, groups = case.dense(), case.groups()
    before = deepcopy(model.state_dict())
    budget = LatencyBudget(ratio=0.1, points=2, seconds=1e-6)
    cost = budget.cost(model, groups, {})
    sizes = torch.tensor([group.size for group in groups])
    assert len(cost.tables) == len(groups) and cost.total(sizes) == pytest.approx(cost.base)
    for group, (counts, times) in zip(groups, cost.tables, strict=True):
        assert counts.tolist() == [1, group.size] and 0 < times[0] <= times[1], group.name
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())


# Scores


def frame_sample(index: int) -> dict:
    frames = tiny.relative([tiny.frame(0), tiny.frame(index + 1)])
    inputs = dict(img=tiny.images(1, 2, seed=index)[0])
    return dict(inputs=inputs, data_samples=tiny.sample(frames, truth=True, index=index))


def calibration(settings=None) -> CalibrationData:
    loader = dict(dataset=[frame_sample(i) for i in range(2)])
    return CalibrationData(loader, 2, 1, seed=0)


def losses_of(model, batch) -> dict:
    return model._run_forward(model.data_preprocessor(batch, True), mode='loss')


def scores(model, case, criterion, loss=None, **weights):
    pruner = StructuredPruner(
        case.units, criterion, budget=dict(type='units', ratio=0.1),
        calibration=dict(batch_size=1, loss_weights=weights),
    )  # fmt: skip
    kwargs = {} if loss is None else dict(loss=loss)
    return pruner.plan(model, calibration, **kwargs).importance


def test_tasks_are_weighted_as_asked():
    """Names of losses say their task; what they add up to is written out here."""
    case = BY_NAME['FFNNeurons']
    weights = dict(planning=4.0, detection=0.0, map=0.5)

    def by_hand(model, batch):
        total = 0.0
        for name, value in losses_of(model, batch).items():
            if 'loss_map' in name:
                value = value * 0.5
            elif 'loss_plan' in name:
                value = value * 4
            elif 'loss_traj' not in name:
                value = value * 0
            total = total + value
        return total

    found = scores(case.dense(), case, dict(type='Taylor'), **weights)
    expected = scores(case.dense(), case, dict(type='Taylor'), by_hand)
    plain = scores(case.dense(), case, dict(type='Taylor'))
    for one, other, another in zip(found, expected, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * float(other.max()))
        assert not torch.allclose(one, another, rtol=1e-2)


def test_without_detection_its_branches_are_worth_nothing():
    """Nothing but the detection's losses depends on how the first layer's classes are told."""
    case = BY_NAME['all']
    found = scores(case.dense(), case, dict(type='Taylor'), detection=0.0)
    by_name = dict(zip([g.name for g in case.groups()], found, strict=True))
    assert not by_name[f'{HEAD}.cls_branches.0.0'].any()
    assert by_name[f'{HEAD}.map_cls_branches.0.0'].any()
    with pytest.raises(UserError, match=r"loss_weights: 'plan' matches nothing; tasks here are "):
        scores(case.dense(), case, dict(type='Taylor'), plan=1.0)


def test_usage_is_the_score_of_the_best_class():
    """Per sample, of the last layer; a mode counts as much as its agent is there."""
    case = BY_NAME['all']
    model, expected, outs = case.dense(), {}, []
    found = scores(model, BY_NAME['all'], dict(
        type='ByKind', default=dict(type='L1'),
        kinds={kind: dict(type='Usage') for kind in ('object_query', 'map_query', 'motion_mode')},
    ))  # fmt: skip
    model.pts_bbox_head.register_forward_hook(lambda m, args, output: outs.append(output))
    with torch.no_grad():
        for _, _, batch in calibration():
            losses_of(model, batch)
    for name in ('query_embedding', 'map_instance_embedding', 'motion_mode_query'):
        expected[name] = torch.zeros(getattr(model.pts_bbox_head, name).num_embeddings).double()
    for out in outs:
        classes, lines = out['all_cls_scores'][-1, 0], out['map_all_cls_scores'][-1, 0]
        for query, logits in enumerate(classes):
            there = float(logits.max().sigmoid())
            expected['query_embedding'][query] += there / 2
            for mode, logit in enumerate(out['all_traj_cls_scores'][-1, 0, query]):
                expected['motion_mode_query'][mode] += there * float(logit.sigmoid()) / 2
        for query, logits in enumerate(lines):
            expected['map_instance_embedding'][query] += float(logits.max().sigmoid()) / 2
    by_name = dict(zip([g.name for g in case.groups()], found, strict=True))
    weights = dict(model.named_parameters())
    for name, usage in expected.items():
        score = by_name[f'{HEAD}.{name}']
        worth = weights[f'{HEAD}.{name}.weight'].double().abs().sum()
        if name == 'motion_mode_query':  # what the ego reads of the modes is theirs, too
            worth += weights[f'{HEAD}.agent_fus_mlp.0.weight'].double().abs().sum()
        torch.testing.assert_close(score, usage / usage.sum() * worth, rtol=1e-5, atol=0)


@pytest.mark.parametrize('name', ['ObjectQueries', 'MapQueries', 'MotionModes'])
def test_masked_queries_are_not_used(name):
    """Nor can they be the best of anything: their scores are zero."""
    case = BY_NAME[name]
    (group,) = case.groups()
    state = case.state('half')
    masked = mask(case.dense(), state)
    head = masked.pts_bbox_head
    with torch.no_grad():
        outs = head(torch.randn(1, tiny.BEV_H * tiny.BEV_W, tiny.DIMS))
    used = head.unit_usage(outs)[group.kind]
    assert not used[state.removed(group.name)].any() and (used[state.kept[group.name]] > 0).all()
    assert masked.state_dict().keys() == case.dense().state_dict().keys()  # flags aren't kept

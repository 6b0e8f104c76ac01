"""The head against loops over single agents and lanes, and the gradients of its losses."""

import losses_setup as setup
import pytest
import tiny_vad as tiny
import torch
from mmengine.model import bias_init_with_prob
from torch import nn

QUERIES, LINES, DIMS, MODES, POINTS = tiny.QUERIES, tiny.LINES, tiny.DIMS, 6, 20


@pytest.fixture(scope='module')
def head():
    return tiny.build().pts_bbox_head


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def interact(decoder, query, key, query_pos, key_pos, hidden):
    """One query ``(D,)`` looks at keys ``(K, D)``: torch's attention, norms and FFN in a row."""
    (layer,) = decoder.layers
    attention = nn.MultiheadAttention(DIMS, 4, batch_first=True).eval()
    attention.load_state_dict(layer.attentions[0].attn.state_dict())
    q = (query + query_pos)[None, None]
    seen = attention(q, (key + key_pos)[None], key[None], key_padding_mask=hidden[None])[0]
    x = layer.norms[0](query + seen[0, 0])
    first, last = (m for m in layer.ffns[0].modules() if isinstance(m, nn.Linear))
    return layer.norms[1](x + last(first(x).relu()))


def situation(batch=2):
    """Agents and lanes: queries, places in [0, 1], and class logits of which some are large."""
    return dict(
        query=torch.randn(batch, QUERIES, DIMS),
        agents=torch.rand(batch, QUERIES, 2),
        lane_query=torch.randn(batch, LINES, DIMS),
        lanes=torch.rand(batch, LINES, 2),
        outs=dict(
            all_cls_scores=torch.randn(1, batch, QUERIES, 10) - 2.4,
            map_all_cls_scores=torch.randn(1, batch, LINES, 3) - 1.0,
        ),
    )


@torch.no_grad()
@pytest.mark.parametrize('map_thresh, dis_thresh', [(0.5, 0.4), (0.5, 0.0), (1.0, 9.0), (0.0, 9.0)])
def test_motion_agent_by_agent(head, monkeypatch, map_thresh, dis_thresh):
    """Sure lanes within reach, relative to the agent, and always an empty one at (1, 1)."""
    monkeypatch.setattr(head, 'map_thresh', map_thresh)
    monkeypatch.setattr(head, 'dis_thresh', dis_thresh)
    now = situation()
    found = head.motion(**now)
    assert found.shape == (2, QUERIES, MODES, 2 * DIMS)
    nowhere, looked_at = head.pos_mlp(torch.zeros(2)), 0
    for b in range(2):
        modes = head.motion_mode_query.weight
        queries = torch.stack([q + mode for q in now['query'][b] for mode in modes])
        places = head.pos_mlp_sa(torch.stack([p for p in now['agents'][b] for _ in modes]))
        everyone = torch.zeros(len(queries), dtype=torch.bool)
        scores = now['outs']['map_all_cls_scores'][-1, b].sigmoid().max(-1).values
        sure = scores > map_thresh
        for i in range(0, len(queries), 5):
            agent, mode = divmod(i, MODES)
            args = queries[i], queries, places[i], places, everyone
            among_agents = interact(head.motion_decoder, *args)
            close(found[b, agent, mode, :DIMS], among_agents)
            offsets = now['lanes'][b, sure] - now['agents'][b, agent]
            hidden = torch.cat([offsets.norm(dim=-1) > dis_thresh, torch.tensor([False])])
            looked_at += int((~hidden).sum()) - 1
            keys = torch.cat([now['lane_query'][b, sure], torch.zeros(1, DIMS)])
            key_pos = head.pos_mlp(torch.cat([offsets, torch.ones(1, 2)]))
            args = found[b, agent, mode, :DIMS], keys, nowhere, key_pos, hidden
            close(found[b, agent, mode, DIMS:], interact(head.motion_map_decoder, *args))
    assert bool(looked_at) == (dis_thresh > 0 and map_thresh < 1)


@torch.no_grad()
@pytest.mark.parametrize('threshold', [0.0, 0.3])
@pytest.mark.parametrize('ego_his_encoder', [False, True])
def test_plan_looks_at_agents_then_at_lanes(ego_his_encoder, threshold):
    """Those whose score exceeds the threshold; the ego is at (0, 0), the corner of the BEV."""
    head = tiny.build(
        pts_bbox_head__ego_his_encoder=ego_his_encoder, pts_bbox_head__query_thresh=threshold
    ).pts_bbox_head
    now = situation()
    motion, his = torch.randn(2, QUERIES, MODES, 2 * DIMS), torch.randn(2, 2, 2)
    egos = head.ego(2, his)
    args = motion, *(now[key] for key in ('agents', 'lane_query', 'lanes', 'outs'))
    found = head.plan(egos, *args)
    assert found.shape == (2, 3, 6, 2)
    for b in range(2):
        ego = (
            head.ego_query.weight
            if not ego_his_encoder
            else lane_vectors(head.ego_his_encoder, his[b][None, None])[0]
        )
        close(egos[b], ego)
        at_agents = interact(
            head.ego_agent_decoder,
            ego[0],
            *kept_by(
                now['outs']['all_cls_scores'][-1, b],
                threshold,
                torch.stack([head.agent_fus_mlp(m.flatten()) for m in motion[b]]),
                now['agents'][b],
                head.ego_agent_pos_mlp,
            ),
        )
        at_lanes = interact(
            head.ego_map_decoder,
            at_agents,
            *kept_by(
                now['outs']['map_all_cls_scores'][-1, b],
                threshold,
                now['lane_query'][b],
                now['lanes'][b],
                head.ego_map_pos_mlp,
            ),
        )
        known = ego[0] if ego_his_encoder else at_agents
        close(found[b].flatten(), head.ego_fut_decoder(torch.cat([known, at_lanes])))


def kept_by(logits, threshold, keys, places, mlp):
    """Keys, the ego's position, the keys' positions and no mask, of those above the threshold."""
    kept = logits.sigmoid().max(-1).values > threshold
    assert kept.any() and (threshold == 0) == bool(kept.all())
    none = torch.zeros(int(kept.sum()), dtype=torch.bool)
    return keys[kept], mlp(torch.zeros(2)), mlp(places[kept]), none


@torch.no_grad()
def test_outputs_layer_by_layer(head):
    bev = torch.randn(2, tiny.BEV_H * tiny.BEV_W, DIMS)
    outs = head(bev)
    instances, points = head.map_instance_embedding.weight, head.map_pts_embedding.weight
    map_embed = torch.stack([v + p for v in instances for p in points])
    objects, lines = head.transformer.decode(
        bev,
        head.query_embedding.weight,
        map_embed,
        head.shape,
        head.reg_branches,
        head.map_reg_branches,
    )
    low, size = torch.tensor([-15.0, -30.0, -2.0]), torch.tensor([30.0, 60.0, 4.0])
    for i in range(2):
        state = objects.states[i]
        close(outs['all_cls_scores'][i], head.cls_branches[i](state))
        code, reference = head.reg_branches[i](state), objects.references[i]
        for place, source in ((0, 0), (1, 1), (4, 2)):
            share = (code[..., place] + reference[..., source]).sigmoid()
            metres = share * size[source] + low[source]
            close(outs['all_bbox_preds'][i, ..., place], metres)
        for same in (2, 3, 5, 6, 7, 8, 9):
            close(outs['all_bbox_preds'][i, ..., same], code[..., same])
        state = lines.states[i].view(2, LINES, POINTS, DIMS)
        close(outs['map_all_cls_scores'][i], head.map_cls_branches[i](state.mean(2)))
        code = (head.map_reg_branches[i](lines.states[i]) + lines.references[i]).sigmoid()
        code = code.view(2, LINES, POINTS, 2)
        close(outs['map_all_pts_preds'][i], code)
        low_corner, high_corner = code.min(2).values, code.max(2).values
        close(outs['map_all_bbox_preds'][i, ..., :2], (low_corner + high_corner) / 2)
        close(outs['map_all_bbox_preds'][i, ..., 2:], high_corner - low_corner)
    agents = (outs['all_bbox_preds'][-1, ..., :2] - low[:2]) / size[:2]
    last = lines.states[-1].view(2, LINES, POINTS, DIMS)
    lane_query, lanes = lane_vectors(head.lane_encoder, last), code.new_zeros(2, LINES, 2)
    for b in range(2):
        for line in range(LINES):
            lanes[b, line] = code[b, line][code[b, line].norm(dim=-1).argmin()]
    motion = head.motion(objects.states[-1], agents, lane_query, lanes, outs)
    for i in range(2):  # said once, repeated for each layer
        close(outs['all_traj_preds'][i], head.traj_branches[0](motion))
        close(outs['all_traj_cls_scores'][i], head.traj_cls_branches[0](motion)[..., 0])
    plan = head.plan(head.ego(2, None), motion, agents, lane_query, lanes, outs)
    close(outs['ego_fut_preds'], plan)


def lane_vectors(encoder, points):
    """VectorNet on ``(B, V, points, D)``: each layer adds the maximum over the points."""
    for layer in encoder.layer_seq:
        linear, norm, _ = layer.mlp
        points = norm(linear(points)).relu()
        points = torch.cat([points, points.max(2, keepdim=True).values.expand_as(points)], -1)
    return points.max(2).values


@torch.no_grad()
def test_shapes(head):
    outs = head(torch.randn(3, tiny.BEV_H * tiny.BEV_W, DIMS))
    assert {name: tuple(x.shape) for name, x in outs.items()} == dict(
        all_cls_scores=(2, 3, QUERIES, 10),
        all_bbox_preds=(2, 3, QUERIES, 10),
        all_traj_preds=(2, 3, QUERIES, MODES, 12),
        all_traj_cls_scores=(2, 3, QUERIES, MODES),
        map_all_cls_scores=(2, 3, LINES, 3),
        map_all_bbox_preds=(2, 3, LINES, 4),
        map_all_pts_preds=(2, 3, LINES, POINTS, 2),
        ego_fut_preds=(3, 3, 6, 2),
    )


def test_samples_of_a_batch_do_not_see_each_other(head):
    bev = torch.randn(2, tiny.BEV_H * tiny.BEV_W, DIMS)
    both, alone = head(bev), head(bev[1:])
    for name, x in alone.items():
        part = both[name][1:] if name == 'ego_fut_preds' else both[name][:, 1:]
        close(part, x)


def test_motion_and_plan_do_not_move_the_boxes(head):
    """Positions that others are seen at carry no gradient to the box and map branches."""
    outs = head(torch.randn(1, tiny.BEV_H * tiny.BEV_W, DIMS))
    total = outs['ego_fut_preds'].sum() + outs['all_traj_preds'].sum()
    branches = [*head.reg_branches[-1].parameters(), *head.map_reg_branches[-1].parameters()]
    assert all(g is None for g in torch.autograd.grad(total, branches, allow_unused=True))


@pytest.mark.parametrize('truths', [dict(), dict(agents=0, elements=0)], ids=['full', 'empty'])
@pytest.mark.parametrize('ego_his_encoder', [False, True])
def test_every_trainable_parameter_gets_a_gradient(truths, ego_his_encoder):
    """What distributed training asks for, also on a street without anything on it."""
    options = dict(ego_his_encoder=ego_his_encoder, map_thresh=0.0, dis_thresh=2.0)
    model = tiny.build(**{f'pts_bbox_head__{k}': v for k, v in options.items()}).train()
    frames = tiny.relative([tiny.frame(0), tiny.frame(1)])
    data = dict(
        inputs=dict(img=tiny.images(1, 2)), data_samples=[tiny.sample(frames, truth=True, **truths)]
    )
    losses = model(**data, mode='loss')
    assert all(loss.dim() == 0 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None or not p.grad.isfinite().all()] == []
    frozen = {n for n, _ in model.named_parameters()} - set(trained)
    assert {n for n in frozen if not n.startswith('img_backbone')} == {
        'pts_bbox_head.code_weights',
        'pts_bbox_head.map_code_weights',
    }
    if not truths:
        assert [n for n, p in trained.items() if not p.grad.any()] == []


def test_losses_are_those_of_the_outputs(head):
    """``head.loss`` is the losses' module; code weights are the head's."""
    outs = head(torch.randn(1, tiny.BEV_H * tiny.BEV_W, DIMS))
    found = head.loss(outs, [setup.formula_sample()], head.code_weights, head.map_code_weights)
    expected = setup.build()(
        outs, [setup.formula_sample()], setup.CODE_WEIGHTS, setup.MAP_CODE_WEIGHTS
    )
    for name, value in expected.items():
        close(found[name], value)


def test_code_weights_are_in_the_state_dict_and_not_trained(head):
    state = head.state_dict()
    assert torch.equal(state['code_weights'], setup.CODE_WEIGHTS)
    assert torch.equal(state['map_code_weights'], setup.MAP_CODE_WEIGHTS)
    assert not head.code_weights.requires_grad and not head.map_code_weights.requires_grad


def test_starts_as_the_original():
    head = tiny.build().pts_bbox_head
    head.init_weights()
    rare = bias_init_with_prob(0.01)
    for branches in (head.cls_branches, head.map_cls_branches, head.traj_cls_branches):
        for branch in branches:
            assert (branch[-1].bias == rare).all()
    modes = head.motion_mode_query.weight
    close(modes @ modes.T, torch.eye(MODES))
    assert not head.pos_mlp.bias.any() and not head.pos_mlp_sa.bias.any()


def test_a_head_without_losses_can_be_used():
    head = tiny.build(pts_bbox_head__loss=None).pts_bbox_head
    assert head.loss is None
    head(torch.randn(1, tiny.BEV_H * tiny.BEV_W, DIMS))


@torch.no_grad()
@pytest.mark.parametrize('dtype, metres', [(torch.bfloat16, 0.5), (torch.float16, 0.05)])
def test_mixed_precision_keeps_boxes_in_place(head, dtype, metres):
    """Positions are computed in full: half floats step by 6 cm (bfloat16: 12 cm) at 20 m."""
    bev = torch.randn(1, tiny.BEV_H * tiny.BEV_W, DIMS)
    exact = head(bev)
    with torch.autocast('cpu', dtype=dtype):
        found = head(bev)
    for name in ('all_bbox_preds', 'map_all_pts_preds'):
        assert found[name].dtype == torch.float32, name
    error = (found['all_bbox_preds'] - exact['all_bbox_preds'])[..., :2].abs()
    assert error.mean() < metres

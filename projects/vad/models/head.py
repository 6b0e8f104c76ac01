"""VAD's head: perception, motion prediction and planning on one set of queries."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule, bias_init_with_prob
from mmengine.registry import MODELS, TASK_UTILS
from torch import Tensor, nn

from projects.prune_plugin.common.errors import UserError

from .branches import LaneNet, copies, mlp
from .decoder import Decoded
from .interaction import (
    hidden_queries,
    nearest_to_corner,
    out_of_reach,
    pad_last,
    silenced,
    unsure,
)
from .on_device import constant
from .query_init import spread_lines, spread_objects


@MODELS.register_module()
class VADHead(BaseModule):
    """Queries, branches and decoders of VAD (https://arxiv.org/abs/2303.12077), and its losses.

    Args:
        transformer: Config of the perception transformer.
        positional_encoding: Config of the BEV's positions.
        motion_decoder: Config of agent-agent attention.
        motion_map_decoder: Config of agent-lane attention.
        ego_agent_decoder: Config of ego-agent attention.
        ego_map_decoder: Config of ego-lane attention.
        bbox_coder: Config of the box decoder; its ``pc_range`` is the head's.
        map_bbox_coder: Config of the map decoder.
        loss: Config of the losses; None for a head that is only used, not trained.
        bev_h: Cells of the BEV along y.
        bev_w: Cells of the BEV along x.
        embed_dims: Width of queries.
        num_query: Object queries.
        num_classes: Object classes.
        map_num_vec: Map queries.
        map_num_pts_per_vec: Points of a map element.
        map_num_classes: Map classes.
        fut_mode: Trajectories per agent.
        fut_ts: Future steps, of 0.5 s.
        ego_fut_mode: Commands: right, left, straight.
        lane_hidden: Width of the lane encoder's layers; half of embed_dims if None.
        ego_his_encoder: Start the ego's query from its last two offsets instead of a learnt vector,
            and plan from them too. Published weights don't.
        spread_queries: Let objects start on a grid over the BEV and map lines ahead, side by side;
            by default their places are random.
        code_weights: Of the box codes in the loss.
        map_code_weights: Of the map boxes in the loss.
        map_thresh: Agents look at lanes whose score exceeds this.
        dis_thresh: And that are at most this far away, in units of the BEV.
        query_thresh: The ego looks at agents and lanes whose score exceeds this.
    """

    code_size = 10

    def __init__(
        self,
        transformer: dict,
        positional_encoding: dict,
        motion_decoder: dict,
        motion_map_decoder: dict,
        ego_agent_decoder: dict,
        ego_map_decoder: dict,
        bbox_coder: dict,
        map_bbox_coder: dict,
        loss: dict | None = None,
        bev_h: int = 100,
        bev_w: int = 100,
        embed_dims: int = 256,
        num_query: int = 300,
        num_classes: int = 10,
        map_num_vec: int = 100,
        map_num_pts_per_vec: int = 20,
        map_num_classes: int = 3,
        fut_mode: int = 6,
        fut_ts: int = 6,
        ego_fut_mode: int = 3,
        lane_hidden: int | None = None,
        ego_his_encoder: bool = False,
        spread_queries: bool = False,
        code_weights: Sequence[float] = (1.0,) * 8 + (0.2,) * 2,
        map_code_weights: Sequence[float] = (1.0,) * 4,
        map_thresh: float = 0.5,
        dis_thresh: float = 0.2,
        query_thresh: float = 0.0,
    ):
        super().__init__()
        self.shape = (bev_h, bev_w)
        self.map_num_vec, self.map_num_pts_per_vec = map_num_vec, map_num_pts_per_vec
        self.fut_mode, self.fut_ts, self.ego_fut_mode = fut_mode, fut_ts, ego_fut_mode
        self.map_thresh, self.dis_thresh, self.query_thresh = map_thresh, dis_thresh, query_thresh
        self.code_weights = frozen(code_weights)
        self.map_code_weights = frozen(map_code_weights)
        self.bbox_coder = TASK_UTILS.build(bbox_coder)
        self.map_bbox_coder = TASK_UTILS.build(map_bbox_coder)
        self.pc_range = tuple(self.bbox_coder.pc_range)
        self.spread_queries = spread_queries
        self.loss = None if loss is None else MODELS.build(loss)
        dims, wide = embed_dims, 2 * embed_dims
        self.positional_encoding = MODELS.build(positional_encoding)
        self.transformer = MODELS.build(transformer)
        depth = len(self.transformer.decoder.layers)
        map_depth = len(self.transformer.map_decoder.layers)
        self.cls_branches = copies(mlp(dims, num_classes, norm=True), depth)
        self.reg_branches = copies(mlp(dims, self.code_size), depth)
        self.traj_branches = copies(mlp(wide, fut_ts * 2), 1)
        self.traj_cls_branches = copies(mlp(wide, 1, norm=True), 1)
        self.map_cls_branches = copies(mlp(dims, map_num_classes, norm=True), map_depth)
        self.map_reg_branches = copies(mlp(dims, 2), map_depth)
        self.bev_embedding = nn.Embedding(bev_h * bev_w, dims)
        self.query_embedding = nn.Embedding(num_query, wide)
        self.map_instance_embedding = nn.Embedding(map_num_vec, wide)
        self.map_pts_embedding = nn.Embedding(map_num_pts_per_vec, wide)
        self.motion_decoder = MODELS.build(motion_decoder)
        self.motion_mode_query = nn.Embedding(fut_mode, dims)
        self.pos_mlp_sa = nn.Linear(2, dims)
        self.lane_encoder = LaneNet(dims, lane_hidden or dims // 2)
        self.motion_map_decoder = MODELS.build(motion_map_decoder)
        self.pos_mlp = nn.Linear(2, dims)
        self.ego_his_encoder = LaneNet(2, dims // 2) if ego_his_encoder else None
        self.ego_query = None if ego_his_encoder else nn.Embedding(1, dims)
        self.ego_agent_decoder = MODELS.build(ego_agent_decoder)
        self.ego_agent_pos_mlp = nn.Linear(2, dims)
        self.ego_map_decoder = MODELS.build(ego_map_decoder)
        self.ego_map_pos_mlp = nn.Linear(2, dims)
        self.ego_fut_decoder = mlp(wide, ego_fut_mode * fut_ts * 2)
        self.agent_fus_mlp = nn.Sequential(
            nn.Linear(fut_mode * wide, dims), nn.LayerNorm(dims), nn.ReLU(), nn.Linear(dims, dims)
        )
        for queries in ('object', 'map', 'mode'):  # set by masking: 0 for queries that are to go
            self.register_buffer(f'{queries}_flags', None, persistent=False)

    def init_weights(self) -> None:
        """As the original: Xavier for attention, rare classes at first, orthogonal modes."""
        self.transformer.init_weights()
        for branches in (self.cls_branches, self.map_cls_branches, self.traj_cls_branches):
            for branch in branches:
                nn.init.constant_(branch[-1].bias, bias_init_with_prob(0.01))
        for module in (
            self.motion_decoder,
            self.motion_map_decoder,
            self.lane_encoder,
            *([] if self.ego_his_encoder is None else [self.ego_his_encoder]),
            self.ego_agent_decoder,
            self.ego_map_decoder,
        ):
            for parameter in module.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
        nn.init.orthogonal_(self.motion_mode_query.weight)
        for linear in (self.pos_mlp_sa, self.pos_mlp):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        if self.spread_queries:
            self._spread_queries()

    def _spread_queries(self) -> None:
        """Reference points on a grid."""
        width, places = self.query_embedding.weight.shape[1] // 2, self.transformer
        positions = (
            embedding.weight[:, :width]
            for embedding in (
                self.query_embedding,
                self.map_instance_embedding,
                self.map_pts_embedding,
            )
        )
        objects, lines, points = positions
        spread_objects(places.reference_points, objects, self.extent)
        spread_lines(places.map_reference_points, lines, points, self.extent)

    @property
    def extent(self) -> tuple[float, float]:
        """Size of the BEV in x and y, in metres."""
        low, high = self.pc_range[:2], self.pc_range[3:5]
        return (high[0] - low[0], high[1] - low[1])

    def encode(
        self,
        features: Sequence[Tensor],
        frames: Sequence[dict[str, Any]],
        previous: Tensor | None = None,
    ) -> Tensor:
        """BEV features ``(B, bev_h * bev_w, embed_dims)``; see the transformer's ``encode``."""
        queries = self.bev_embedding.weight
        positions = self.positional_encoding(queries.new_zeros(1, *self.shape))
        positions = positions.flatten(2).transpose(1, 2)
        return self.transformer.encode(
            features, queries, positions, self.shape, frames, self.extent, previous
        )

    def forward(self, bev: Tensor, ego_his: Tensor | None = None) -> dict[str, Tensor]:
        """Everything the head says about a BEV.

        Args:
            bev: ``(B, bev_h * bev_w, embed_dims)``.
            ego_his: The ego's last offsets ``(B, steps, 2)``; needed with ``ego_his_encoder``.

        Returns:
            ``all_cls_scores`` (layers, B, Q, classes) logits; ``all_bbox_preds`` (layers, B, Q, 10)
            cx, cy, log w, log l, cz, log h, sin, cos, vx, vy in metres; ``all_traj_preds``
            (layers, B, Q, modes, steps * 2) offsets per step; ``all_traj_cls_scores`` (layers, B,
            Q, modes); ``map_all_cls_scores`` (layers, B, V, classes); ``map_all_pts_preds``
            (layers, B, V, points, 2) in [0, 1]; ``map_all_bbox_preds`` (layers, B, V, 4) cx, cy, w,
            h in [0, 1]; ``ego_fut_preds`` (B, commands, steps, 2) offsets per step.
        """
        map_embed = self.map_instance_embedding.weight[:, None] + self.map_pts_embedding.weight
        objects, lines = self.transformer.decode(
            bev,
            self.query_embedding.weight,
            map_embed.flatten(0, 1),
            self.shape,
            self.reg_branches,
            self.map_reg_branches,
            (hidden_queries(self.object_flags), self.hidden_points()),
        )
        outs = self.boxes(objects) | self.lines(lines)
        agents = outs.pop('centers').detach()
        lanes = nearest_to_corner(outs['map_all_pts_preds'][-1].detach())
        lane_query = self.lane_encoder(self.per_line(lines.states[-1]))
        motion = self.motion(objects.states[-1], agents, lane_query, lanes, outs)
        layers = len(objects.states)
        trajectories, modes = self.traj_branches[0](motion), self.traj_cls_branches[0](motion)
        outs['all_traj_preds'] = trajectories.expand(layers, *trajectories.shape)
        modes = silenced(modes, hidden_queries(self.mode_flags)).squeeze(-1)
        outs['all_traj_cls_scores'] = modes.expand(layers, *modes.shape)
        ego = self.ego(len(bev), ego_his)
        outs['ego_fut_preds'] = self.plan(ego, motion, agents, lane_query, lanes, outs)
        return outs

    def ego(self, batch: int, ego_his: Tensor | None) -> Tensor:
        """The ego's query ``(B, 1, embed_dims)``."""
        if self.ego_his_encoder is None:
            return self.ego_query.weight.expand(batch, -1, -1)
        if ego_his is None:
            raise UserError('ego_his_encoder=True needs samples with gt_ego.his_trajs')
        return self.ego_his_encoder(ego_his[:, None])

    def hidden_points(self) -> Tensor | None:
        """Points of hidden map queries, ``(1, V * points)``."""
        hidden = hidden_queries(self.map_flags)
        return None if hidden is None else hidden.repeat_interleave(self.map_num_pts_per_vec, 1)

    def hidden_tokens(self) -> Tensor | None:
        """Agents' modes of which the query or the mode is hidden, ``(1, Q * modes)``."""
        agents, modes = hidden_queries(self.object_flags), hidden_queries(self.mode_flags)
        if agents is None and modes is None:
            return None
        like = self.query_embedding.weight
        agents = like.new_zeros(1, len(like)).bool() if agents is None else agents
        modes = like.new_zeros(1, self.fut_mode).bool() if modes is None else modes
        return (agents[:, :, None] | modes[:, None]).flatten(1)

    def per_line(self, points: Tensor) -> Tensor:
        """``(B, V * points, ...)`` as ``(B, V, points, ...)``."""
        return points.unflatten(1, (self.map_num_vec, self.map_num_pts_per_vec))

    def boxes(self, found: Decoded) -> dict[str, Tensor]:
        """Classes and boxes of all layers, and the last layer's ``centers`` in [0, 1]."""
        logits = torch.stack(
            [branch(x) for branch, x in zip(self.cls_branches, found.states, strict=True)]
        )
        logits = silenced(logits, hidden_queries(self.object_flags))
        index = constant(tuple(self.transformer.decoder.code_index), found.codes, torch.long)
        places = (found.codes[..., index] + found.references).sigmoid()
        low = constant(self.pc_range[:3], places)
        size = constant(self.pc_range[3:], places) - low
        metres = places * size + low
        codes = found.codes
        preds = torch.cat(
            [metres[..., :2], codes[..., 2:4], metres[..., 2:], codes[..., 5:]], dim=-1
        )
        return dict(all_cls_scores=logits, all_bbox_preds=preds, centers=places[-1, ..., :2])

    def lines(self, found: Decoded) -> dict[str, Tensor]:
        """Classes, points and bounding boxes of the map elements of all layers."""
        logits = torch.stack(
            [
                branch(self.per_line(x).mean(2))
                for branch, x in zip(self.map_cls_branches, found.states, strict=True)
            ]
        )
        logits = silenced(logits, hidden_queries(self.map_flags))
        points = (found.codes + found.references).sigmoid()
        points = points.unflatten(2, (self.map_num_vec, self.map_num_pts_per_vec))
        low, high = points.amin(3), points.amax(3)
        boxes = torch.cat([(low + high) / 2, high - low], -1)
        return dict(map_all_cls_scores=logits, map_all_bbox_preds=boxes, map_all_pts_preds=points)

    def motion(
        self, query: Tensor, agents: Tensor, lane_query: Tensor, lanes: Tensor, outs: dict
    ) -> Tensor:
        """Agents' queries, one per mode, after looking at other agents and at lanes.

        Args:
            query: The object decoder's states, ``(B, Q, embed_dims)``.
            agents: Their centres ``(B, Q, 2)`` in [0, 1].
            lane_query: ``(B, V, embed_dims)``.
            lanes: The lanes' places ``(B, V, 2)`` in [0, 1].
            outs: Holds ``map_all_cls_scores``.

        Returns:
            ``(B, Q, modes, 2 * embed_dims)``: before the lanes, then after.
        """
        query = (query[:, :, None] + self.motion_mode_query.weight).flatten(1, 2)
        per_mode = agents[:, :, None].expand(-1, -1, self.fut_mode, -1).flatten(1, 2)
        positions = self.pos_mlp_sa(per_mode)
        among_agents = self.motion_decoder(query, query_pos=positions, hidden=self.hidden_tokens())
        faint = unsure(outs['map_all_cls_scores'][-1], self.map_thresh)
        hidden = out_of_reach(per_mode, lanes, self.dis_thresh) | faint[:, None]
        # Lanes are seen relative to the agent, and there is always one empty lane at (1, 1).
        # pos_mlp(lane - agent) = pos_mlp(lane) - weight @ agent: the second part is the key's shift.
        shifted = torch.ones(lanes.shape[1] + 1, device=lanes.device)
        shifted[-1] = 0
        among_lanes = self.motion_map_decoder(
            among_agents,
            query_pos=self.pos_mlp.bias.expand(*per_mode.shape[:2], -1),
            key=pad_last(lane_query, 0.0),
            key_pos=self.pos_mlp(pad_last(lanes, 1.0)),
            hidden=pad_last(hidden.transpose(1, 2), False).transpose(1, 2),
            key_shift=per_mode @ self.pos_mlp.weight.T,
            shifted=shifted,
        )
        both = torch.cat([among_agents, among_lanes], -1)
        return both.unflatten(1, (-1, self.fut_mode))

    def plan(
        self,
        ego: Tensor,
        motion: Tensor,
        agents: Tensor,
        lane_query: Tensor,
        lanes: Tensor,
        outs: dict,
    ) -> Tensor:
        """The ego's trajectory for each command, ``(B, commands, steps, 2)`` offsets per step.

        Args:
            ego: ``(B, 1, embed_dims)``.
            motion: See :meth:`motion`.
            agents: See there.
            lane_query: See there.
            lanes: See there.
            outs: Holds the classes of objects and map elements.
        """
        at_agents = self.ego_agent_decoder(
            ego,
            query_pos=self.ego_agent_pos_mlp.bias.expand_as(ego),
            key=self.agent_fus_mlp(motion.flatten(2)),
            key_pos=self.ego_agent_pos_mlp(agents),
            hidden=unsure(outs['all_cls_scores'][-1], self.query_thresh),
        )
        at_lanes = self.ego_map_decoder(
            at_agents,
            query_pos=self.ego_map_pos_mlp.bias.expand_as(ego),
            key=lane_query,
            key_pos=self.ego_map_pos_mlp(lanes),
            hidden=unsure(outs['map_all_cls_scores'][-1], self.query_thresh),
        )
        known = at_agents if self.ego_his_encoder is None else ego
        paths = self.ego_fut_decoder(torch.cat([known, at_lanes], -1))
        return paths.view(len(ego), self.ego_fut_mode, self.fut_ts, 2)

    @staticmethod
    def unit_usage(outs: dict[str, Tensor]) -> dict[str, Tensor]:
        """How much each query was used, by kind, from :meth:`forward`'s answer, summed over the batch.

        Of object and map queries it is the score of their best class, of an agent's modes the mode's
        score, counted as much as the agent is there.
        """
        objects = outs['all_cls_scores'][-1].float().sigmoid().amax(-1)
        lines = outs['map_all_cls_scores'][-1].float().sigmoid().amax(-1)
        modes = outs['all_traj_cls_scores'][-1].float().sigmoid() * objects[..., None]
        return dict(
            object_query=objects.sum(0), map_query=lines.sum(0), motion_mode=modes.sum((0, 1))
        )

    def decode(self, outs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Boxes and map elements of each sample: what both coders say, in one dict.

        Boxes are VAD boxes (see ``projects.vad.structures``).
        """
        objects, lines = self.bbox_coder.decode(outs), self.map_bbox_coder.decode(outs)
        return [dict(objects=o, lines=v) for o, v in zip(objects, lines, strict=True)]


def frozen(values: Sequence[float]) -> nn.Parameter:
    """Numbers that are part of the state dict and aren't trained."""
    return nn.Parameter(torch.tensor(values, dtype=torch.float32), requires_grad=False)

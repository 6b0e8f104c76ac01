"""VAD's rows of the test matrix, and the parameters of its units worked out by hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial

import tiny_vad as tiny
import torch
from cases import Case, cached_model
from losses_setup import wave
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from projects.prune_plugin import PruneState

HEAD, TRANSFORMER = 'pts_bbox_head', 'pts_bbox_head.transformer'
DIMS, WIDE, HEADS, POINTS, HIDDEN, MODES = tiny.DIMS, 2 * tiny.DIMS, 4, 4, 48, 6
INTERACTIONS = ('motion', 'motion_map', 'ego_agent', 'ego_map')
#: Which dimension of an output counts the units of a group of queries.
QUERIES = {
    'query_embedding': dict(
        all_cls_scores=2, all_bbox_preds=2, all_traj_preds=2, all_traj_cls_scores=2
    ),
    'map_instance_embedding': dict(map_all_cls_scores=2, map_all_bbox_preds=2, map_all_pts_preds=2),
    'motion_mode_query': dict(all_traj_preds=3, all_traj_cls_scores=3),
}
Outputs = list[dict[str, Tensor]]


def build(layers: int = 1, his: bool = False, **options) -> nn.Module:
    """A tiny VAD with a thin backbone, in which agents and the ego see every lane."""
    return tiny.build(**arguments(layers, his), **options)


def arguments(layers: int, his: bool) -> dict:
    head = dict(map_thresh=0.0, dis_thresh=2.0, ego_his_encoder=his)
    thin = dict(img_backbone__base_channels=8, img_neck__in_channels=[32, 64])
    return dict(layers=layers, **thin, **{f'{HEAD}__{key}': v for key, v in head.items()})


def sample(number: int):
    """A frame of a drive, with the ego's last offsets."""
    data = tiny.sample([tiny.frame(number)])
    data.gt_ego = BaseDataElement(his_trajs=wave((2, 2), 7 + number))
    return data


@torch.no_grad()
def two_frames(model: nn.Module, mode: str = 'tensor') -> list:
    """What a model says of two frames, of which the second sees the first's BEV."""
    model.eval()
    model.reset()
    return [model(dict(img=tiny.images(seed=i)), [sample(i)], mode=mode) for i in range(2)]


def without_masked(outs: Mapping[str, Tensor], state: PruneState) -> dict[str, Tensor]:
    """A masked model's outputs without the queries that are masked."""
    outs = dict(outs)
    for group, places in QUERIES.items():
        kept = state.kept.get(f'{HEAD}.{group}')
        for name, dim in places.items() if kept is not None else ():
            outs[name] = outs[name].index_select(dim, kept)
    return outs


@dataclass(frozen=True)
class VADCase(Case):
    """A row with VAD for a model: it is run over two frames, and every output counts."""

    def run(self, model: nn.Module) -> Tensor:
        """All outputs in one vector, in units of the dense model's largest number."""
        return self.scaled(two_frames(model))

    def run_masked(self, model: nn.Module, state: PruneState) -> Tensor:
        """See :meth:`Case.run_masked`."""
        return self.scaled([without_masked(outs, state) for outs in two_frames(model)])

    def scaled(self, frames: Outputs) -> Tensor:
        scales = dense_scales(self)
        return torch.cat([(frames[i][name] / scale).flatten() for (i, name), scale in scales])

    def loss(self, model: nn.Module) -> Tensor:
        """All of VAD's losses on a queue of two frames with truths."""
        frames = tiny.relative([tiny.frame(0), tiny.frame(1)])
        samples = [tiny.sample(frames, truth=True)]
        return sum(model.train()(dict(img=tiny.images(1, 2)), samples, mode='loss').values())

    def __hash__(self):
        return hash(self.name)


@cache
def dense_scales(case: VADCase) -> list:
    frames = two_frames(cached_model(case))
    return [((i, n), x.abs().max()) for i, outs in enumerate(frames) for n, x in outs.items()]


# Parameters by hand


def attentions(layers: int) -> list[str]:
    """Heads between queries."""
    decoders = [f'{TRANSFORMER}.{d}.layers.{i}' for d in DECODERS for i in range(layers)]
    decoders += [f'{HEAD}.{name}_decoder.layers.0' for name in INTERACTIONS]
    return [f'{layer}.attentions.0.attn' for layer in decoders]


DECODERS = ('decoder', 'map_decoder')


def deformables(layers: int) -> dict[str, tuple[int, int, int, int]]:
    """Deformable attention: width of the query, maps, levels, and points that go together."""
    found = {}
    for i in range(layers):
        layer = f'{TRANSFORMER}.encoder.layers.{i}.attentions'
        found[f'{layer}.0'] = (2 * DIMS, 2, 1, 1)
        found[f'{layer}.1.deformable_attention'] = (DIMS, 1, tiny.LEVELS, 4)
        for decoder in DECODERS:
            found[f'{TRANSFORMER}.{decoder}.layers.{i}.attentions.1'] = (DIMS, 1, 1, 1)
    return found


def point_units(together: int) -> int:
    """Units of points: four points each, and in the cameras eight of which four go at a time."""
    return POINTS if together == 1 else 8 // together


def ffns(layers: int) -> list[str]:
    names = [f'{TRANSFORMER}.{d}.layers.{i}' for d in ('encoder', *DECODERS) for i in range(layers)]
    return [
        f'{n}.ffns.0' for n in (*names, *(f'{HEAD}.{m}_decoder.layers.0' for m in INTERACTIONS))
    ]


def chains(layers: int) -> dict[str, tuple[list[str], list[int], bool]]:
    """Branches: the linear layers that have units, all widths, and whether norms stand between."""
    found = {f'{TRANSFORMER}.can_bus_mlp': (['0'], [18, DIMS // 2, DIMS], False)}
    for prefix, classes, code in (('', 10, 10), ('map_', 3, 2)):
        for i in range(layers):
            widths = [DIMS] * 3
            found[f'{HEAD}.{prefix}cls_branches.{i}'] = (['0', '3'], [*widths, classes], True)
            found[f'{HEAD}.{prefix}reg_branches.{i}'] = (['0', '2'], [*widths, code], False)
    found[f'{HEAD}.traj_branches.0'] = (['0', '2'], [WIDE] * 3 + [12], False)
    found[f'{HEAD}.traj_cls_branches.0'] = (['0', '3'], [WIDE] * 3 + [1], True)
    found[f'{HEAD}.ego_fut_decoder'] = (['0', '2'], [WIDE] * 3 + [36], False)
    return found


def lane_nets(his: bool) -> dict[str, int]:
    """Polyline encoders: the width of a point."""
    return {'lane_encoder': DIMS} | ({'ego_his_encoder': 2} if his else {})


def blocks() -> list[tuple[str, int, int]]:
    """Residual blocks of the thin ResNet-18: name, width in, width out."""
    found, width = [], 8
    for stage in range(1, 5):
        for i in range(2):
            found.append((f'img_backbone.layer{stage}.{i}', width, 8 * 2 ** (stage - 1)))
            width = found[-1][-1]
    return found


def held(kept: Mapping[str, int], layers: int, his: bool) -> int:
    """Parameters of everything that has units."""
    total = 0
    for name in attentions(layers):
        total += kept.get(name, HEADS) * (3 * 8 * (DIMS + 1) + 8 * DIMS)
    for name, (width, maps, levels, together) in deformables(layers).items():
        heads = kept.get(name, HEADS)
        points = kept.get(f'{name}.sampling_offsets', point_units(together)) * together
        total += heads * (maps * levels * points * 3 * (width + 1) + 8 * (DIMS + 1) + 8 * DIMS)
    total += sum(kept.get(name, HIDDEN) * (2 * DIMS + 1) for name in ffns(layers))
    for name, (numbers, widths, norm) in chains(layers).items():
        inner = [kept.get(f'{name}.{n}', w) for n, w in zip(numbers, widths[1:-1], strict=True)]
        chain = [widths[0], *inner, widths[-1]]
        total += sum(a * b for a, b in zip(chain, chain[1:], strict=False))
        total += sum(inner) * (3 if norm else 1)
    for name, width in lane_nets(his).items():
        first, second = (
            kept.get(f'{HEAD}.{name}.layer_seq.lmlp_{i}.mlp.0', DIMS // 2) for i in range(2)
        )
        total += first * (width + 3) + second * (2 * first + 3) + DIMS // 2 * 2 * second
    modes = kept.get(f'{HEAD}.motion_mode_query', MODES)
    fused = kept.get(f'{HEAD}.agent_fus_mlp.0', DIMS)
    total += modes * DIMS + fused * (modes * WIDE + 3) + fused * DIMS
    total += kept.get(f'{HEAD}.query_embedding', tiny.QUERIES) * WIDE
    total += kept.get(f'{HEAD}.map_instance_embedding', tiny.LINES) * WIDE
    for name, width, out in blocks():
        total += kept.get(f'{name}.conv1', out) * (9 * width + 2 + 9 * out)
    return total + kept.get('img_neck.lateral_convs', DIMS) * (32 + 64 + 2 + 2 * 9 * DIMS)


@cache
def dense_count(layers: int, his: bool) -> int:
    return sum(p.numel() for p in build(layers, his).parameters())


def count(kept: Mapping[str, int], layers: int, his: bool) -> int:
    """Parameters of a slim model."""
    return dense_count(layers, his) - held({}, layers, his) + held(kept, layers, his)


# Rows


def sizes(layers: int, his: bool) -> dict[str, dict[str, list[int]]]:
    """Sizes of the groups that each finder finds, by kind."""
    branches = [w for _, widths, _ in chains(layers).values() for w in widths[1:-1]]
    branches += [DIMS] + [DIMS // 2] * 2 * len(lane_nets(his))
    points = [point_units(together) for _, _, _, together in deformables(layers).values()]
    return {
        'AttentionHeads': {'attention': [HEADS] * len(attentions(layers))},
        'DeformableHeads': {'deformable': [HEADS] * len(points)},
        'SamplingPoints': {'point': points},
        'FFNNeurons': {'mlp': [HIDDEN] * len(ffns(layers))},
        'BranchNeurons': {'branch': branches},
        'BottleneckChannels': {'channel': [out for _, _, out in blocks()]},
        'FPNChannels': {'channel': [DIMS]},
        'ObjectQueries': {'object_query': [tiny.QUERIES]},
        'MapQueries': {'map_query': [tiny.LINES]},
        'MotionModes': {'motion_mode': [MODES]},
    }


KINDS = tuple(sizes(1, False))
#: Kinds whose FLOPs go in proportion to each of their widths; queries look at each other.
PROPORTIONAL = KINDS[:7]


def row(name: str, *finders: str, layers: int = 1, his: bool = False) -> VADCase:
    expected: dict[str, list[int]] = {}
    for finder in finders:
        for kind, found in sizes(layers, his)[finder].items():
            expected[kind] = expected.get(kind, []) + found
    return VADCase(
        f'vad-{name}',
        partial(build, layers, his),
        tuple,
        tuple(dict(type=finder) for finder in finders),
        partial(count, layers=layers, his=his),
        expected,
        empty=set(finders) <= {'AttentionHeads', 'FFNNeurons'},
    )


CASES = [
    *(row(finder, finder) for finder in KINDS),
    row('heads_and_points', 'DeformableHeads', 'SamplingPoints'),
    row('all', *KINDS, layers=2),
    row('all-his', *KINDS, his=True),
]
BY_NAME = {case.name.removeprefix('vad-'): case for case in CASES}

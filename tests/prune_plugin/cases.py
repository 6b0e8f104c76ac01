"""The test matrix. A new unit kind, criterion, allocator or budget costs one row here.

``test_registries.py`` fails for anything registered that has no row.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial

import pytest
import tiny_detectors as detectors
import tiny_llms
import tiny_models as tiny
import tiny_yolo as yolo
import torch
from torch import Tensor, nn

from projects.prune_plugin import UNITS, PruneState
from projects.prune_plugin.common.registry import build
from projects.prune_plugin.structure.units import UnitFinder, UnitGroup, discover

HEADS, NEURONS = dict(type='AttentionHeads'), dict(type='FFNNeurons')
LAYERS, CHANNELS = dict(type='PreNormLayers'), dict(type='BottleneckChannels')
COUPLED = dict(type='CoupledChannels', input_shape=(3, 32, 32))
BRANCHES, PYRAMID = dict(type='BranchNeurons'), dict(type='FPNChannels')
STACKS = dict(type='StackedChannels')


@dataclass(frozen=True)
class Case:
    """One model with the units to prune in it.

    Attributes:
        name: Id of the row.
        build: Makes the dense model.
        inputs: Makes positional arguments of one forward call.
        units: ``prune_cfg.units``.
        count: Parameters of the slim model, from the units kept by group; by hand.
        sizes: Sizes of the groups expected, by kind.
        empty: Whether a module runs when its group has lost all of its units.
        needs: Module without which the row is skipped.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    units: tuple[dict, ...]
    count: Callable[[dict[str, int]], int]
    sizes: dict[str, list[int]]
    empty: bool = True
    needs: str = 'torch'

    def dense(self) -> nn.Module:
        """A fresh dense model, always with the same weights."""
        pytest.importorskip(self.needs)
        return deepcopy(cached_model(self))

    def finders(self) -> list[UnitFinder]:
        """The finders of ``units``."""
        return [build(UNITS, unit, 'units') for unit in self.units]

    def groups(self) -> list[UnitGroup]:
        """The unit groups of the dense model."""
        pytest.importorskip(self.needs)
        return list(cached_groups(self))

    def state(self, level: str, seed: int = 3) -> PruneState:
        """A prune state with randomly chosen units; see :func:`random_state`."""
        return random_state(self.groups(), level, seed)

    def run(self, model: nn.Module) -> Tensor:
        """The model's output as one flat tensor."""
        with torch.no_grad():
            return flat(model(*self.inputs()))

    def run_masked(self, model: nn.Module, state: PruneState) -> Tensor:
        """Of a model masked by ``state`` the output that the slim one has too."""
        return self.run(model)

    def loss(self, model: nn.Module) -> Tensor:
        """A number that depends on every parameter of the model."""
        return flat(model(*self.inputs())).square().sum()

    def __hash__(self):
        return hash(self.name)


@cache
def cached_model(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return tiny.randomised(case.build())


@cache
def cached_groups(case: Case) -> tuple[UnitGroup, ...]:
    return tuple(discover(cached_model(case), case.finders())[0])


def flat(output) -> Tensor:
    """All tensors of a model's output in one vector."""
    if hasattr(output, 'logits'):
        output = output.logits
    if isinstance(output, Tensor):
        return output.flatten()
    return torch.cat([flat(part) for part in output])


def random_state(groups, level: str, seed: int = 3) -> PruneState:
    """A state that keeps all, half, one or none of the units of each group, chosen at random.

    A group's modules keep what they need to run, whatever the level. Of groups of one unit (whole
    layers), ``half`` keeps every other, ``one`` the last alone.
    """
    generator = torch.Generator().manual_seed(seed)
    kept = {}
    for number, group in enumerate(groups):
        single = {'half': number % 2, 'one': int(number == len(groups) - 1)}
        count = {'all': group.size, 'half': group.size // 2, 'one': 1, 'none': 0}[level]
        if group.size == 1:
            count = single.get(level, count)
        count = max(count, group.least)
        order = torch.randperm(group.size, generator=generator)
        kept[group.name] = order[:count].sort().values
    return PruneState({g.name: g for g in groups}, kept)


def resnet_sizes(depth: int, base: int = 64) -> list[int]:
    """Inner widths of a ResNet's blocks."""
    blocks = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]
    per_block = 1 if depth == 18 else 2
    return [base * 2**i for i, number in enumerate(blocks) for _ in range(number * per_block)]


def coupled_sizes(depth: int) -> list[int]:
    """Inner widths, and those that blocks share: the stem's and the stages'."""
    stages = [64, 128, 256, 512] if depth == 18 else [64, 256, 512, 1024, 2048]
    return resnet_sizes(depth) + stages


def resnet_case(depth: int, units: dict, sizes: dict) -> Case:
    return Case(
        f'resnet{depth}-{next(iter(sizes))}',
        partial(tiny.torchvision_resnet, depth),
        tiny.images,
        (units,),
        partial(tiny.resnet_count, depth=depth),
        sizes,
        empty=False,
        needs='torch_pruning' if units is COUPLED else 'torchvision',
    )


def mmdet_case(depth: int) -> Case:
    return Case(
        f'mmdet_resnet{depth}',
        partial(tiny.mmdet_resnet, depth),
        tiny.images,
        (CHANNELS,),
        partial(tiny.resnet_count, depth=depth, base=8, classes=0),
        {'channel': resnet_sizes(depth, 8)},
        empty=False,
        needs='mmcv.ops',
    )


def vit_case(name: str, units: tuple, sizes: dict, **kwargs) -> Case:
    build = partial(tiny.timm_vit, **kwargs)
    count = partial(tiny.vit_count, **kwargs)
    return Case(name, build, tiny.images, units, count, sizes, needs='timm')


def branches_case(name: str, norm: type[nn.Module] | None) -> Case:
    return Case(
        name,
        partial(tiny.Branches, norm),
        tiny.features,
        (BRANCHES,),
        partial(tiny.branches_count, norm=norm),
        {'branch': [24, 20, 18]},
        empty=False,
    )


def pyramid_case(name: str, extra: str | bool = False, norm: bool = False) -> Case:
    return Case(
        name,
        partial(tiny.Pyramid, extra, norm),
        tiny.levels,
        (PYRAMID,),
        partial(tiny.pyramid_count, extra=extra, norm=norm),
        {'channel': [12]},
        empty=False,
        needs='mmcv.ops',
    )


def two_kinds(heads: list[int], neurons: list[int]) -> dict[str, list[int]]:
    return {'attention': heads, 'mlp': neurons}


BOTH = (HEADS, NEURONS)
CASES = [
    resnet_case(18, CHANNELS, {'channel': resnet_sizes(18)}),
    resnet_case(50, CHANNELS, {'channel': resnet_sizes(50)}),
    resnet_case(18, COUPLED, {'coupled': coupled_sizes(18)}),
    resnet_case(50, COUPLED, {'coupled': coupled_sizes(50)}),
    mmdet_case(18),
    mmdet_case(50),
    vit_case('vit', BOTH, two_kinds([4] * 3, [192] * 3), depth=3),
    vit_case('vit-glu', BOTH, two_kinds([4] * 2, [96] * 2), mlp='GluMlp'),
    vit_case('vit-swiglu', BOTH, two_kinds([4] * 2, [192] * 2), mlp='SwiGLU'),
    vit_case('vit-layers', (LAYERS,), {'layer': [1] * 4}, depth=4),
    Case('mmcv_decoder', tiny.MmcvDecoder, tiny.sequence, BOTH, tiny.mmcv_decoder_count,
         two_kinds([4, 4], [64, 64]), needs='mmcv'),
    Case('torch_encoder', tiny.encoder, tiny.sequence, BOTH, tiny.encoder_count,
         two_kinds([4, 4], [64, 64])),
    Case('torch_decoder', tiny.decoder, tiny.sequence, BOTH, tiny.decoder_count,
         two_kinds([4, 4], [64])),
    Case('cross_attention', tiny.MaskedCrossAttention,
         partial(tiny.drawn, (2, 3, 32), (2, 5, 24), (2, 5, 40)), (HEADS,),
         tiny.cross_attention_count, {'attention': [4]}),
    Case('llama-gqa', tiny.llama, tiny.tokens, BOTH, tiny.llama_count,
         two_kinds([2] * 3, [96] * 3), needs='transformers'),
    Case('llama-4kv', partial(tiny.llama, 4), tiny.tokens, BOTH,
         partial(tiny.llama_count, kv_heads=4), two_kinds([4] * 3, [96] * 3), needs='transformers'),
    Case('llama-layers', tiny.llama, tiny.tokens, (LAYERS,), tiny.llama_count,
         {'layer': [1] * 3}, needs='transformers'),
    Case('opt', tiny.opt, tiny.tokens, BOTH, tiny.opt_count, two_kinds([4] * 2, [64] * 2),
         needs='transformers'),
    Case('opt-layers', tiny.opt, tiny.tokens, (LAYERS,), tiny.opt_count, {'layer': [1] * 2},
         needs='transformers'),
]  # fmt: skip
CASES += [
    Case('mmcv_deformable', tiny.MmcvDeformable, partial(tiny.drawn, (2, 7, 32), (2, 26, 32)),
         (dict(type='DeformableHeads'),), tiny.mmcv_deformable_count, {'deformable': [4, 4]},
         empty=False, needs='mmcv.ops'),
    branches_case('branches', None),
    branches_case('branches-layer_norm', nn.LayerNorm),
    branches_case('branches-batch_norm', nn.BatchNorm1d),
    pyramid_case('fpn'),
    pyramid_case('fpn-bn-on_lateral', 'on_lateral', norm=True),
    pyramid_case('fpn-on_output', 'on_output'),
    pyramid_case('fpn-bn-on_input', 'on_input', norm=True),
]  # fmt: skip


def stacks_case(name: str, build, inputs, count, sizes: list[int], needs: str, **kwargs) -> Case:
    unit, kind = (BRANCHES, 'branch') if name == 'box_head' else (STACKS, 'channel')
    return Case(name, build, inputs, (unit,), partial(count, **kwargs), {kind: sizes}, empty=False,
                needs=needs)  # fmt: skip


CASES += [
    Case('mmdet_resnet50-dcn', detectors.deformed_resnet, tiny.images, (CHANNELS,),
         detectors.deformed_resnet_count, {'channel': resnet_sizes(50, 8)}, empty=False,
         needs='mmcv.ops'),
    stacks_case('second', detectors.second, detectors.pillars, detectors.second_count, [6, 6, 8],
                'mmdet3d.models'),
    stacks_case('retina', partial(detectors.retina, None), detectors.two_levels,
                detectors.retina_count, [12] * 4, 'mmdet.models'),
    stacks_case('retina-gn', partial(detectors.retina, detectors.GN), detectors.two_levels,
                detectors.retina_count, [4] * 4, 'mmdet.models', width=3),
    stacks_case('rpn', partial(detectors.rpn, 1), detectors.two_levels, detectors.rpn_count, [12],
                'mmdet.models', convs=1),
    stacks_case('rpn-2', partial(detectors.rpn, 2), detectors.two_levels, detectors.rpn_count,
                [12, 12], 'mmdet.models', convs=2),
    stacks_case('box_head', detectors.boxes, detectors.regions, detectors.boxes_count, [20, 20],
                'mmdet.models'),
    stacks_case('center_head', detectors.centers, detectors.bird_view, detectors.centers_count,
                [8] + [10] * 6, 'mmdet3d.models'),
    stacks_case('mono3d_head', detectors.mono3d, detectors.two_levels, detectors.mono3d_count,
                [4] * 8, 'mmdet3d.models'),
]  # fmt: skip


def yolo_case(name: str, build, inputs, count, sizes: list[int], unit: dict = STACKS) -> Case:
    return Case(name, build, inputs, (unit,), count, {'channel': sizes}, empty=False,
                needs='mmdet3d.models' if name == 'dla' else 'mmdet.models')  # fmt: skip


CASES += [
    yolo_case('csp', yolo.csp, yolo.maps, yolo.csp_count, [6] * 4),
    yolo_case('csp-apart', partial(yolo.csp, identity=False), yolo.maps, yolo.csp_count, [6] * 3),
    yolo_case('cspnext', partial(yolo.csp, True), yolo.maps, partial(yolo.csp_count, cspnext=True),
              [6] * 4),
    yolo_case('darknet', yolo.darknet, yolo.wide_maps, yolo.darknet_count, [4, 5, 10, 5, 10]),
    yolo_case('mobile', yolo.mobile, yolo.narrow_maps, yolo.mobile_count, [14]),
    yolo_case('yolox_head', yolo.yolox, detectors.two_levels, yolo.yolox_count, [10] * 8),
    yolo_case('yolov3_head', yolo.yolov3, detectors.two_levels, yolo.yolov3_count, [10, 6]),
    *(
        yolo_case(kind, partial(yolo.dense_head, kind), detectors.two_levels,
                  partial(yolo.dense_head_count, kind=kind), [units] * 4)
        for kind, units in (('FCOSHead', 4), ('ATSSHead', 12), ('GFLHead', 12))
    ),
    yolo_case('mmdet_resnet18-gn', yolo.normed_resnet, tiny.images, yolo.normed_resnet_count,
              [4] * 8, CHANNELS),
    yolo_case('dla', yolo.Dla, yolo.narrow_maps, yolo.dla_count, [6, 2], CHANNELS),
]  # fmt: skip


def gqa_case(name: str, kind: str, units: tuple, sizes: dict, counts: dict | None = None, **kwargs):
    return Case(name, partial(tiny_llms.gqa, kind, **kwargs), tiny.tokens, units,
                partial(tiny_llms.gqa_count, **counts or {}), sizes,
                needs='transformers')  # fmt: skip


def neox_case(name: str, units: tuple, sizes: dict, parallel: bool = True) -> Case:
    return Case(name, partial(tiny_llms.neox, parallel), tiny.tokens, units, tiny_llms.neox_count,
                sizes, needs='transformers')  # fmt: skip


GQA, LAYER_PAIR = two_kinds([2] * 2, [48] * 2), {'layer': [1] * 2}
LLM_CASES = [
    neox_case('neox', BOTH, two_kinds([4] * 2, [48] * 2)),
    neox_case('neox-serial', BOTH, two_kinds([4] * 2, [48] * 2), parallel=False),
    neox_case('neox-layers', (LAYERS,), LAYER_PAIR),
    gqa_case('mistral', 'Mistral', BOTH, GQA, sliding_window=4),
    gqa_case('qwen2', 'Qwen2', BOTH, GQA, dict(qkv_bias=True)),
    gqa_case('qwen3', 'Qwen3', BOTH, GQA, dict(head_norms=True)),
    gqa_case('gemma', 'Gemma', BOTH, GQA),
    gqa_case('gemma-layers', 'Gemma', (LAYERS,), LAYER_PAIR),
    gqa_case('gemma2', 'Gemma2', BOTH, GQA, dict(norms=4)),
    gqa_case('gemma3', 'Gemma3', BOTH, GQA, dict(head_norms=True, norms=4), sliding_window=4),
    gqa_case('phi3-mlp', 'Phi3', (NEURONS,), {'mlp': [48] * 2}),
    gqa_case('phi3-layers', 'Phi3', (LAYERS,), LAYER_PAIR),
]
CASES += LLM_CASES
BY_NAME = {case.name: case for case in CASES}

#: Kinds of units of which only a family has modules; their rows are beside that family's tests.
UNITS_ELSEWHERE = ('SamplingPoints',)

#: Levels at which every case is pruned.
LEVELS = ('half', 'one', 'none')

#: Every criterion, with the arguments worth comparing; brute_force.py defines each by its type.
CRITERIA_ROWS = [
    dict(type='L1'),
    dict(type='L1', parts='in'),
    dict(type='L1', parts='out'),
    dict(type='L2'),
    dict(type='L2', parts='in', normalize='mean'),
    dict(type='Taylor', order=1),
    dict(type='Taylor', order=2, normalize='max'),
    dict(type='Wanda'),
    dict(type='Fisher'),
    dict(type='Random', seed=5),
]
#: Tested one by one, in test_criteria.py, test_activation.py, test_refill.py and test_removal_costs.py.
OTHER_CRITERIA = ('Usage', 'ByKind', 'Activation', 'Remain', 'OptimalBrainSurgeon')
ALLOCATOR_ROWS = [
    dict(type='Knapsack'),
    dict(type='Global'),
    dict(type='Uniform'),
    dict(type='Uniform', exact=True),
    dict(type='LayerWise'),
]
#: Tested in test_refill.py.
OTHER_ALLOCATORS = ('Refill',)
#: Allocators that stop at the first unit that keeps the limit.
GREEDY = ('Knapsack', 'Global')
BUDGET_ROWS = [
    dict(type='params', ratio=0.3),
    dict(type='flops', ratio=0.3),
    dict(type='units', ratio=0.4),
    dict(type='latency', ratio=0.3, points=5, seconds=0.01),
]
#: Registered, but for the WeightPruner: tested in test_sparsifiers.py.
WEIGHT_BUDGETS = ('weights',)
#: Registered, but looks for its ratio: tested in test_metric_budget.py and test_search.py.
SEARCHED_BUDGETS = ('metric',)
SPARSIFIER_ROWS = [
    dict(type='Magnitude'),
    dict(type='Magnitude', scope='global'),
    dict(type='Magnitude', pattern='2:4'),
    dict(type='Wanda'),
    dict(type='Wanda', pattern='2:4'),
    dict(type='SparseGPT'),
    dict(type='SparseGPT', pattern='2:4'),
    dict(type='ALPS'),
    dict(type='ALPS', pattern='2:4'),
]
COMPENSATION_ROWS = [
    dict(type='LeastSquares'),
]
#: Tested in test_reconstruction.py.
RECONSTRUCTIONS = ('LocalReconstruction',)
SCHEDULE_ROWS = [
    dict(type='OneShot'),
    dict(type='Geometric'),
    dict(type='Geometric', share=0.5, lr_decay=0.5, rewind='initial'),
    dict(type='Cubic', rounds=4),
    dict(type='Steps', ratios=[0.2, 0.3, 0.6]),
]

"""What is discovered, without a look at any name, is what the layouts know by the names of classes."""

from copy import deepcopy

import pytest
import torch
from cases import BY_NAME, random_state
from small_modules import MODULES

from projects.prune_plugin import mask, slim
from projects.prune_plugin.structure.discovery.call import Call
from projects.prune_plugin.structure.discovery.discover import Discovery, discover_units
from projects.prune_plugin.structure.unit_group import UnitGroup
from projects.prune_plugin.structure.units.home_classes import is_home_class

#: Rows of the matrix whose groups are the same, names and owners included.
SAME = (
    'resnet18-channel', 'mmdet_resnet18', 'mmdet_resnet18-gn', 'vit', 'vit-glu', 'vit-swiglu', 'llama-gqa',
    'llama-4kv', 'opt', 'neox', 'neox-serial', 'mistral', 'qwen2', 'qwen3', 'gemma', 'gemma2', 'gemma3',
    'retina', 'retina-gn', 'rpn-2', 'center_head', 'yolox_head', 'yolov3_head', 'FCOSHead', 'ATSSHead',
    'GFLHead', 'dla', 'darknet', 'mobile', 'second',
)  # fmt: skip
#: Rows whose groups are all among those discovered, perhaps under other names.
WITHIN = (
    'resnet50-channel',
    'mmdet_resnet50',
    'phi3-mlp',
    'branches-layer_norm',
    'fpn',
    'box_head',
    'csp-apart',
)


def discovered(name: str) -> tuple[torch.nn.Module, Discovery]:
    """A row's model, and what is found in it."""
    case = BY_NAME[name]
    model = case.dense()
    return model, discover_units(model, Call(case.inputs()))


def slices(group: UnitGroup) -> frozenset:
    """What each unit owns of which tensor."""
    return frozenset(
        (cut.name, cut.dim, tuple(map(tuple, cut.indices(group.size).sort(1).values.tolist())))
        for cut in group.cuts
        if cut.side in ('in', 'out')
    )


@pytest.mark.parametrize('name', SAME)
def test_the_same_groups(name):
    _, found = discovered(name)
    known = BY_NAME[name].groups()
    assert {(g.name, g.kind, g.size, slices(g)) for g in found.groups} == {
        (g.name, g.kind, g.size, slices(g)) for g in known
    }
    assert not {group.name for group in known} & found.refused.keys()


@pytest.mark.parametrize('name', WITHIN)
def test_the_same_slices_and_more(name):
    _, found = discovered(name)
    assert {slices(g) for g in BY_NAME[name].groups()} <= {slices(g) for g in found.groups}
    assert all(found.proofs[group.name].startswith(('tried', 'as in')) for group in found.groups)


@pytest.mark.parametrize('name', ['resnet50-channel', 'mmdet_resnet50', 'phi3-mlp', 'csp-apart'])
@pytest.mark.parametrize('level', ['half', 'one'])
def test_all_that_is_discovered_together(name, level):
    """Slim equals masked with units of every group removed."""
    case = BY_NAME[name]
    model, found = discovered(name)
    state = random_state(found.groups, level)
    slimmed, masked = slim(deepcopy(model), state), mask(deepcopy(model), state)
    one, other = case.run(slimmed), case.run(masked)
    assert torch.allclose(one, other, 1e-4, 1e-5 * float(other.abs().max()))
    assert sum(p.numel() for p in slimmed.parameters()) < sum(p.numel() for p in model.parameters())


def test_classes_at_home():
    """Those for which a layout was written, not those that are only called the same."""
    vit, llama = BY_NAME['vit'].dense(), BY_NAME['llama-gqa'].dense()
    assert is_home_class(vit.blocks[0].attn) and is_home_class(vit.blocks[0].mlp)
    assert is_home_class(llama.model.layers[0].self_attn)
    assert not is_home_class(MODULES['ChunkedAttention'][0]())

    class Mlp(torch.nn.Module):
        """Not timm's."""

    assert not is_home_class(Mlp())
    assert not is_home_class(type('LlamaMLP', (torch.nn.Module,), {})())

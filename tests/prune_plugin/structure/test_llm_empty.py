"""Language models of which whole modules or layers are gone still run, and generate."""

from copy import deepcopy

import pytest
import tiny_models as tiny
import torch
from cases import BOTH, BY_NAME, HEADS, LAYERS, NEURONS

from projects.prune_plugin import UNITS, PruneState, StructuredPruner, compose, mask, slim
from projects.prune_plugin.common.registry import build
from projects.prune_plugin.structure.modules import EmptyAttention, SkipLayer
from projects.prune_plugin.structure.units import discover

pytest.importorskip('transformers')
MODELS = ['llama-gqa', 'mistral', 'qwen2', 'qwen3', 'gemma', 'gemma3', 'opt', 'neox']


def emptied(model, *, first: bool, units=BOTH) -> PruneState:
    """Lose everything in the first layer, or everywhere; other groups lose their first unit."""
    groups, _ = discover(model, [build(UNITS, unit, '') for unit in units])
    kept = {g.name: torch.arange(1 if first and g.layer_idx else g.size, g.size) for g in groups}
    return PruneState({g.name: g for g in groups}, kept)


def generated(model, implementation: str, use_cache: bool):
    model.set_attn_implementation(implementation)
    (inputs,) = tiny.tokens()
    model.generation_config.eos_token_id = None  # always the full length
    output = model.generate(
        inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=5, do_sample=False,
        use_cache=use_cache, output_logits=True, return_dict_in_generate=True, pad_token_id=0,
    )  # fmt: skip
    return output.sequences, torch.stack(output.logits)


def assert_same(model, other, implementation: str) -> None:
    tokens, logits = generated(model, implementation, True)
    for use_cache in (True, False):
        expected_tokens, expected = generated(other, implementation, use_cache)
        assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()
        assert torch.equal(tokens, expected_tokens)
    whole, parts = (in_chunks(m, n) for m, n in ((other, [7]), (model, [3, 1, 3])))
    assert (whole - parts).abs().max() < 1e-5 * whole.abs().max()


@torch.no_grad()
def in_chunks(model, sizes: list[int]) -> torch.Tensor:
    """Logits of chunks of tokens; what the model knows of earlier ones is in the cache."""
    cache, logits = None, []
    for part in tiny.tokens()[0].split(sizes, 1):
        output = model(part, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        logits.append(output.logits)
    return torch.cat(logits, 1)


@pytest.mark.parametrize('implementation', ['sdpa', 'eager'])
@pytest.mark.parametrize('first', [True, False], ids=['first', 'all'])
@pytest.mark.parametrize('name', MODELS)
def test_empty_groups_generate_as_masked_ones(name, first, implementation):
    dense = BY_NAME[name].dense()
    state = emptied(dense, first=first)
    masked, slimmed = mask(deepcopy(dense), state), slim(dense, state)
    kinds = [type(m) for m in slimmed.modules()]
    assert kinds.count(EmptyAttention) == (1 if first else len(BY_NAME[name].sizes['attention']))
    assert_same(slimmed, masked, implementation)


@pytest.mark.parametrize('implementation', ['sdpa', 'eager'])
@pytest.mark.parametrize('name', ['llama-layers', 'opt-layers', 'neox-layers', 'gemma-layers'])
def test_a_missing_first_layer_keeps_its_place_in_the_cache(name, implementation):
    """The cache's length is read off its first layer."""
    dense = BY_NAME[name].dense()
    groups, _ = discover(dense, [build(UNITS, LAYERS, '')])
    kept = {g.name: torch.arange(1 if g.layer_idx else 0) for g in groups[:2]}
    kept[groups[1].name] = torch.arange(1)
    state = PruneState({g.name: g for g in groups[:2]}, kept)
    masked, slimmed = mask(deepcopy(dense), state), slim(dense, state)
    assert any(isinstance(module, SkipLayer) for module in slimmed.modules())
    assert_same(slimmed, masked, implementation)


def test_the_last_heads_may_go_in_a_second_pruning():
    dense = BY_NAME['llama-gqa'].dense()
    groups, _ = discover(dense, [build(UNITS, unit, '') for unit in BOTH])
    first = PruneState({g.name: g for g in groups}, {g.name: torch.arange(1) for g in groups})
    once = slim(deepcopy(dense), first)
    second = emptied(once, first=True)
    twice = slim(once, second)
    both = PruneState.from_dict(compose(first, second).to_dict())
    direct = slim(deepcopy(dense), both)
    assert isinstance(direct.model.layers[0].self_attn, EmptyAttention)
    assert same_output(twice, direct) and same_output(mask(dense, both), direct)


def same_output(one, other) -> bool:
    outputs = [model(*tiny.tokens()).logits for model in (one, other)]
    return torch.allclose(*outputs, rtol=1e-5, atol=1e-6)


def test_what_is_empty_already_is_not_found_again():
    dense = BY_NAME['llama-gqa'].dense()
    slimmed = slim(dense, emptied(dense, first=True))
    plan = StructuredPruner([HEADS, NEURONS], budget=dict(type='params', ratio=0.1)).plan(slimmed)
    assert {group.layer_idx for group in plan.groups} == {1, 2}
    assert plan.refused == {'model.layers.0.mlp': 'no neurons are left'}

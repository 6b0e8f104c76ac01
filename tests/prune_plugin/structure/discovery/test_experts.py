"""Experts of mixtures as units: with their rows of the router, never chosen where they are masked."""

import copy

import pytest
import torch
import torch.nn.functional as F
from test_discovery import outputs, stirred, worst
from torch import nn

from projects.prune_plugin import PruneState, UserError, build_pruner, compose, mask, slim

HALF = dict(budget=dict(type='units', ratio=0.5), allocator=dict(type='Uniform'))


class Experts(nn.Module):
    """Stacked experts, and their router in the same module; the two best of six for each token."""

    size, chosen = 6, 2

    def __init__(self, bias: bool = False):
        super().__init__()
        self.router = nn.Parameter(torch.randn(self.size, 16))
        self.register_parameter('offset', nn.Parameter(torch.randn(self.size)) if bias else None)
        self.up = nn.Parameter(torch.randn(self.size, 16, 24) / 4)
        self.down = nn.Parameter(torch.randn(self.size, 24, 16) / 4)

    def forward(self, x):
        shape, x = x.shape, x.flatten(0, -2)
        scores = F.linear(x, self.router, self.offset).softmax(-1)
        weights, numbers = scores.topk(self.chosen)
        out = torch.zeros_like(x)
        for expert in numbers.unique().tolist():
            rows, places = (numbers == expert).nonzero(as_tuple=True)
            y = (x[rows] @ self.up[expert]).relu() @ self.down[expert]
            out = out.index_add(0, rows, y * weights[rows, places][:, None])
        return out.view(shape)


class Sigmoid(Experts):
    """Scores that don't depend on each other, and a correction that only chooses (DeepSeek-V3)."""

    def __init__(self):
        super().__init__()
        self.register_buffer('correction', torch.randn(self.size))

    def forward(self, x):
        shape, x = x.shape, x.flatten(0, -2)
        scores = (x @ self.router.t()).sigmoid()
        numbers = (scores + self.correction).topk(self.chosen).indices
        weights = scores.gather(1, numbers)
        y = torch.einsum('nd,edh->neh', x, self.up).relu()
        y = torch.einsum('neh,ehd->ned', y, self.down)
        y = y.gather(1, numbers[..., None].expand(-1, -1, x.shape[-1]))
        return (y * weights[..., None]).sum(1).view(shape)


class Soft(Experts):
    """All experts, each with its share."""

    chosen = 1

    def forward(self, x):
        shares = F.linear(x, self.router, self.offset).softmax(-1)
        y = torch.einsum('...d,edh->...eh', x, self.up).relu()
        return torch.einsum('...eh,ehd,...e->...d', y, self.down, shares)


class Model(nn.Module):
    """One mixture between two layers."""

    def __init__(self, mixture: nn.Module):
        super().__init__()
        self.first, self.mixture, self.last = nn.Linear(16, 16), mixture, nn.Linear(16, 5)

    def forward(self, x):
        return self.last(self.mixture(self.first(x)))


def expert_group(plan):
    (group,) = [group for group in plan.groups if group.kind == 'expert']
    return group


@pytest.mark.parametrize('mixture', [Experts, lambda: Experts(bias=True), Sigmoid, Soft])
def test_masked_experts_are_never_chosen(mixture):
    torch.manual_seed(0)
    model, x = stirred(Model(mixture())).eval().double(), torch.randn(3, 40, 16).double()
    plan = build_pruner(HALF).plan(model, example_inputs=x)
    group = expert_group(plan)
    assert (group.size, group.least) == (6, model.mixture.chosen)
    only = build_pruner(dict(HALF, include=[f'{group.name}$'])).plan(model, example_inputs=x)
    state = PruneState.from_dict(only.state.to_dict())
    kept = state.kept[group.name]
    assert len(kept) == 3
    slimmed, masked = slim(copy.deepcopy(model), state), mask(copy.deepcopy(model), state)
    assert slimmed.mixture.up.shape == (3, 16, 24) and slimmed.mixture.router.shape == (3, 16)
    assert torch.equal(slimmed.mixture.down, model.mixture.down[kept])
    assert masked.mixture.up.shape == (6, 16, 24)
    # An independent definition: the mixture of the kept experts alone.
    reference = copy.deepcopy(model)
    for tensor in (*reference.mixture.parameters(), *reference.mixture.buffers()):
        tensor.data = tensor.data[kept]
    assert worst(outputs(slimmed, x), outputs(reference, x)) < 1e-12
    assert worst(outputs(masked, x), outputs(reference, x)) < 1e-12
    assert not torch.allclose(outputs(model, x), outputs(reference, x))


def test_pruned_again_and_not_below_what_a_token_takes():
    torch.manual_seed(0)
    model, x = stirred(Model(Experts())).eval(), torch.randn(3, 40, 16)
    name = expert_group(build_pruner(HALF).plan(model, example_inputs=x)).name
    include = dict(HALF, include=[f'{name}$'])
    first = build_pruner(include).plan(model, example_inputs=x).state
    once = slim(copy.deepcopy(model), first)
    harder = dict(include, budget=dict(type='units', ratio=0.3))
    second = build_pruner(harder).plan(once, example_inputs=x).state
    twice = slim(copy.deepcopy(once), second)
    assert twice.mixture.router.shape == (2, 16)
    direct = slim(copy.deepcopy(model), compose(first, second))
    assert torch.equal(outputs(direct, x), outputs(twice, x))
    with pytest.raises(UserError, match='can be removed'):
        build_pruner(dict(include, budget=dict(type='units', ratio=0.9))).plan(
            model, example_inputs=x
        )


def test_a_flops_budget_knows_that_a_token_takes_as_many_experts_as_before():
    from projects.prune_plugin.evaluation.flops import module_flops

    torch.manual_seed(0)
    model, x = stirred(Model(Experts())).eval(), torch.randn(1, 40, 16)
    cfg = dict(budget=dict(type='flops', ratio=0.2), profile=dict(input_shape=(40, 16)))
    plan = build_pruner(cfg).plan(model, example_inputs=x)
    assert expert_group(plan)
    dense = sum(module_flops(model, ((x,), {})).values())
    left = sum(module_flops(slim(copy.deepcopy(model), plan.state), ((x,), {})).values())
    # Which experts are chosen depends on the input; the two of each token cost the same.
    assert 1 - left / dense == pytest.approx(plan.result.achieved, abs=0.02)


@pytest.mark.parametrize('kind', ['mixtral', 'qwen3_moe', 'gpt_oss'])
def test_half_of_the_experts_of_language_models(kind, tmp_path):
    transformers = pytest.importorskip('transformers')
    from projects.llm.saving import save_hf

    sizes = dict(
        vocab_size=96, hidden_size=64, intermediate_size=96, moe_intermediate_size=48, head_dim=16,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, num_experts=8,
        num_local_experts=8, num_experts_per_tok=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    base = transformers.AutoConfig.for_model(kind)
    config = transformers.AutoConfig.for_model(
        kind, **{k: v for k, v in sizes.items() if hasattr(base, k)}
    )
    model = stirred(transformers.AutoModelForCausalLM.from_config(config)).eval()
    x = dict(input_ids=torch.randint(1, 96, (2, 20)))
    found = build_pruner(HALF).plan(model, example_inputs=x).groups
    names = [group.name for group in found if group.kind == 'expert']
    assert len(names) == 2
    state = build_pruner(dict(HALF, include=names)).plan(model, example_inputs=x).state
    slimmed, masked = slim(copy.deepcopy(model), state), mask(copy.deepcopy(model), state)
    with torch.no_grad():
        ours, theirs = slimmed(**x).logits, masked(**x).logits
    assert worst(ours, theirs) < 1e-5
    stacks = [p for n, p in slimmed.named_parameters() if n.endswith('down_proj')]
    assert {len(p) for p in stacks} == {4}
    assert save_hf(slimmed, tmp_path / 'folder')
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'folder').float().eval()
    with torch.no_grad():
        assert torch.equal(loaded(**x).logits, ours)
    assert loaded.generate(x['input_ids'], max_new_tokens=3).shape == (2, 23)

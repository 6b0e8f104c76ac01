"""Costs and FLOPs against formulas worked out by hand, and the known figures of Llama-3-8B."""

import re

import pytest
import tiny_models as tiny
import torch
from cases import BY_NAME, HEADS, NEURONS
from torch import nn

from projects.prune_plugin import StructuredPruner, build_pruner, slim
from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.evaluation.example_inputs import example_input, require_example_input
from projects.prune_plugin.evaluation.flops import module_flops
from projects.prune_plugin.evaluation.latency import interleaved_latency, model_latency
from projects.prune_plugin.evaluation.profiling import count_params, profile
from projects.prune_plugin.evaluation.settings import ProfileSettings
from projects.prune_plugin.methods.budgets.costs import TableCost, UnitCost, product_cost

IMAGE = ((torch.zeros(1, 3, 32, 32),), {})


def total_flops(model, example) -> int:
    return sum(module_flops(model, example).values())


def vit_flops(kept, depth: int) -> int:
    """Two per multiply-accumulate; 16 patches of 8 x 8 and a class token, width 48, heads of 12."""
    tokens, dim = 17, 48
    total = 16 * dim * 3 * 8 * 8 + dim * tiny.NUM_CLASSES
    for i in range(depth):
        inner = 12 * kept.get(f'blocks.{i}.attn', 4)
        hidden = kept.get(f'blocks.{i}.mlp', 192)
        total += tokens * dim * 3 * inner + tokens * inner * dim  # qkv, proj
        total += 2 * tokens * tokens * inner  # q @ k and weights @ v
        total += 2 * tokens * dim * hidden
    return 2 * total


def resnet18_flops(kept) -> int:
    """Torchvision's ResNet-18 on a 32 x 32 image: the stem leaves 8 x 8."""
    total, size, width = 16 * 16 * 3 * 64 * 49, 8, 64
    for stage in range(1, 5):
        out = 64 * 2 ** (stage - 1)
        if stage > 1:
            size //= 2
        for index in range(2):
            inner = kept.get(f'layer{stage}.{index}.conv1', out)
            total += size * size * 9 * inner * (width + out)
            if index == 0 and stage > 1:
                total += size * size * width * out
            width = out
    return 2 * (total + 512 * tiny.NUM_CLASSES)


def llama_flops(kept, tokens: int = 7, batch: int = 2) -> int:
    """Three layers of width 64, heads of 8, two KV groups of four query heads."""
    per_token = 0
    for i in range(3):
        groups = kept.get(f'model.layers.{i}.self_attn', 2)
        per_token += groups * 8 * 64 * (4 + 1 + 1 + 4) + 2 * tokens * groups * 4 * 8
        per_token += 3 * 64 * kept.get(f'model.layers.{i}.mlp', 96)
    return 2 * batch * tokens * (per_token + 64 * tiny.VOCABULARY)


@pytest.mark.parametrize('level', ['all', 'half', 'one'])
@pytest.mark.parametrize(
    ('name', 'formula'),
    [
        ('vit', lambda kept: vit_flops(kept, 3)),
        ('resnet18-channel', resnet18_flops),
        ('llama-gqa', llama_flops),
    ],
)
def test_flops_are_the_formula(name, formula, level):
    case = BY_NAME[name]
    state = case.state(level)
    example = (case.inputs(), {}) if name == 'llama-gqa' else IMAGE
    kept = {n: len(k) for n, k in state.kept.items()}
    assert total_flops(slim(case.dense(), state), example) == formula(kept)


def test_flops_of_modules_in_lists_are_counted_once():
    """A ModuleList never runs itself, so its children belong to whoever runs them."""

    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.items = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            for item in self.items:
                x = item(x)
            return x

    found = module_flops(Listed(), ((torch.zeros(1, 4),), {}))
    assert found == {f'items.{i}': 32 for i in range(3)}


class Odd(nn.Module):
    """Calls a grandchild past its parent and one layer from two places; keeps what it can."""

    def __init__(self):
        super().__init__()
        self.holder = nn.ModuleDict(
            {'inner': nn.Sequential(nn.Linear(4, 4)), 'rest': nn.Linear(4, 2)}
        )
        self.shared = nn.Linear(4, 4)
        self.caller = nn.Sequential(self.shared, nn.Linear(4, 3))
        self.kept = None

    def forward(self, x):
        if self.kept is None:
            self.kept = torch.ones(4, 4) @ torch.ones(4, 4)
        x = self.holder['inner'](x) + self.kept.sum()
        self.caller(x)
        return self.holder['rest'](self.shared(x) @ torch.ones(4, 4))


def test_flops_belong_to_whoever_spends_them():
    """Per row 2 x 4 x outputs. What is computed once isn't counted, what runs twice is, twice."""
    found = module_flops(Odd(), ((torch.zeros(3, 4),), {}))
    expected = {'holder.inner.0': 4, 'holder.rest': 2, 'shared': 4 + 4, 'caller.1': 3, '': 4}
    assert found == {name: 3 * 2 * 4 * outputs for name, outputs in expected.items()}


def test_profiling_leaves_the_model_alone():
    model = BY_NAME['torch_encoder'].dense().train()
    fast = torch.backends.mha.get_fastpath_enabled()
    module_flops(model, (tiny.sequence(), {}))
    assert all(m.training for m in model.modules())
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert len(model_latency([model], (tiny.sequence(), {}), seconds=0.0)) == 1
    assert all(m.training for m in model.modules())


def test_latency_is_positive_and_restores_threads():
    threads = torch.get_num_threads()
    small, large = torch.ones(8, 8), torch.ones(512, 512)
    times = interleaved_latency([lambda: small @ small, lambda: large @ large], seconds=0.05)
    assert len(times) == 2 and min(times) > 0
    assert torch.get_num_threads() == threads


def test_tied_embeddings_count_once():
    model = BY_NAME['opt'].dense()
    assert model.lm_head.weight is model.model.decoder.embed_tokens.weight
    groups = BY_NAME['opt'].groups()
    sizes = torch.tensor([group.size for group in groups])
    assert product_cost(model, groups).total(sizes) == count_params(model) == tiny.opt_count({})


def test_example_inputs():
    model = nn.Linear(3, 2)
    assert example_input(model) is None
    with pytest.raises(UserError, match='a word needs an example input'):
        require_example_input(model, None, 1, 'a word')
    args, kwargs = example_input(model, 4, (3,))
    assert args[0].shape == (4, 3) and not kwargs
    model.dummy_inputs = lambda batch_size: dict(input=torch.ones(batch_size, 3))
    args, kwargs = example_input(model, 5, (7,))
    assert not args and kwargs['input'].shape == (5, 3)
    hugging_face = BY_NAME['opt'].dense()
    assert 'input_ids' in example_input(hugging_face)[1]


def test_table_cost_interpolates():
    counts = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64)
    times = torch.tensor([10.0, 14.0, 20.0], dtype=torch.float64)
    cost = TableCost(100.0, [(counts, times), (counts, times)])
    assert cost.total(torch.tensor([5, 5])) == 100
    assert cost.total(torch.tensor([3, 5])) == 94
    assert cost.total(torch.tensor([2, 4])) == pytest.approx(100 - 8 - 3)
    assert cost.total(torch.tensor([0, 5])) == pytest.approx(100 - 12)  # goes on at the same slope
    assert cost.marginal(torch.tensor([5, 5])).tolist() == [2.5, 2.5]


def test_unit_cost_counts():
    assert UnitCost().total(torch.tensor([3, 4])) == 7
    assert UnitCost().marginal(torch.tensor([3, 4])).tolist() == [1, 1]


@pytest.fixture(scope='module')
def llama_8b():
    transformers = pytest.importorskip('transformers')
    config = transformers.LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8,
    )  # fmt: skip
    with torch.device('meta'):
        return transformers.LlamaForCausalLM(config)


def test_llama_3_8b_on_meta_tensors(llama_8b):
    pruner = StructuredPruner(
        [HEADS, NEURONS], dict(type='Random'), budget=dict(type='params', ratio=0.25)
    )
    plan = pruner.plan(llama_8b)
    assert sum(group.size for group in plan.groups) == 459_008
    prices = {g.kind: {int(c)} for g, c in zip(plan.groups, plan.cost, strict=True)}
    for group, cost in zip(plan.groups, plan.cost.tolist(), strict=True):
        prices[group.kind].add(int(cost))
    assert prices == {'attention': {5_242_880}, 'mlp': {12_288}}
    dense = count_params(llama_8b)
    assert dense == 8_030_261_248
    left = {g.kind: 0 for g in plan.groups}
    for group in plan.groups:
        left[group.kind] += group.size - len(plan.state.kept[group.name])
    gone = left['attention'] * 5_242_880 + left['mlp'] * 12_288
    assert 0.25 <= gone / dense < 0.25 + 12_288 / dense


class NeedsTwo(nn.Module):
    """A model that one tensor isn't enough for, as mmdet's DETR."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.ffn = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x, samples=None):
        """The second argument may not be missing."""
        assert samples is not None
        return self.ffn(self.linear(x))


@pytest.mark.parametrize('budget', ['params', 'flops', 'latency'])
def test_a_shape_that_the_model_does_not_run_on_is_the_users_mistake(budget):
    model = NeedsTwo()
    settings = ProfileSettings(input_shape=(4,), seconds=0.01)
    with pytest.raises(UserError, match=r'input_shape is \[4\].* NeedsTwo fails .*AssertionError'):
        if budget == 'params':
            profile([model], settings)
        cfg = dict(budget=dict(type=budget, ratio=0.3), profile=dict(input_shape=(4,)))
        build_pruner(cfg).plan(model)
    assert model.training


def test_a_report_names_the_device_behind_its_times():
    from projects.prune_plugin.evaluation.environment import device_name, environment

    if torch.cuda.is_available():
        pytest.skip('the tools take the GPU')
    name = device_name(torch.nn.Linear(1, 1))
    assert name == environment()['device'] and re.fullmatch(r'cpu \(.+\)', name)

"""Whole layers, attentions and MLPs of classes that nobody knows."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from projects.prune_plugin import UserError, build_pruner, mask, slim
from projects.prune_plugin.structure.modules import SkipBranch, SkipLayer
from projects.prune_plugin.structure.prune_state import PruneState

WIDTH = 16
X = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0))


class Mixer(nn.Module):
    """Tokens mix; gives a tuple, as attentions do."""

    def __init__(self):
        super().__init__()
        self.tokens, self.values = nn.Linear(5, 5, bias=False), nn.Linear(WIDTH, WIDTH)

    def forward(self, *, x, scale=1.0):
        return scale * self.tokens(self.values(x).mT).mT, None


class Thing(nn.Module):
    """A pre-norm layer, or a post-norm one."""

    def __init__(self, post=False):
        super().__init__()
        self.post = post
        self.one, self.two = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mix = Mixer()
        self.net = nn.Sequential(nn.Linear(WIDTH, 24), nn.GELU(), nn.Linear(24, WIDTH))

    def forward(self, x):
        if self.post:
            return self.two(x + self.net(self.one(x + self.mix(x=x)[0])))
        x = x + self.mix(x=self.one(x))[0]
        return x + self.net(self.two(x))


class Net(nn.Module):
    """Layers between a stem and a head."""

    def __init__(self, post=False):
        super().__init__()
        self.stem, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
        self.things = nn.ModuleList(Thing(post) for _ in range(4))

    def forward(self, x):
        x = self.stem(x)
        for thing in self.things:
            x = thing(x)
        return self.head(x)


def net(**kwargs):
    torch.manual_seed(0)
    return Net(**kwargs).eval()


def planned(model, *units, ratio=0.5, budget='units', **cfg):
    pruner = build_pruner(
        dict(units=[dict(type=kind) for kind in units], budget=dict(type=budget, ratio=ratio)) | cfg
    )
    return pruner.plan(model, example_inputs=X)


def by_hand(model, without, parts=('mix', 'net')):
    """What the network gives without some parts of some layers, written once more."""
    x = model.stem(X)
    for number, thing in enumerate(model.things):
        if (number, parts[0]) not in without:
            x = x + thing.mix(x=thing.one(x))[0]
        if (number, parts[1]) not in without:
            x = x + thing.net(thing.two(x))
    return model.head(x)


def keeping(state, removed):
    """The state that removes these groups as a whole, and nothing else."""
    kept = {
        name: torch.arange(0 if name in removed else group.size)
        for name, group in state.groups.items()
    }
    return PruneState(state.groups, kept)


def test_layers_of_unknown_classes_are_found_by_trying():
    model = net()
    plan = planned(model, 'PreNormLayers')
    assert [(g.name, g.kind) for g in plan.groups] == [(f'things.{i}', 'layer') for i in range(4)]
    assert plan.scored.proofs['things.0'] == 'discovered, tried'
    assert plan.scored.proofs['things.3'] == 'discovered, as in things.0'
    state = keeping(plan.state, {'things.1', 'things.2'})
    without = {(number, part) for number in (1, 2) for part in ('mix', 'net')}
    with torch.no_grad():
        expected = by_hand(model, without)
        slimmed = slim(deepcopy(model), state)
        assert isinstance(slimmed.things[1], SkipLayer)
        torch.testing.assert_close(slimmed(X), expected)
        torch.testing.assert_close(mask(deepcopy(model), state)(X), expected)


def test_attentions_and_mlps_go_as_a_whole():
    model = net()
    plan = planned(model, 'PreNormSublayers')
    names = [f'things.{i}.{part}#whole' for i in range(4) for part in ('mix', 'net')]
    assert [group.name for group in plan.groups] == names
    state = keeping(plan.state, {'things.0.mix#whole', 'things.3.net#whole'})
    assert sorted(state.removed_layers) == ['things.0.mix', 'things.3.net']
    with torch.no_grad():
        expected = by_hand(model, {(0, 'mix'), (3, 'net')})
        reloaded = slim(deepcopy(model), PruneState.from_dict(state.to_dict()))
        assert isinstance(reloaded.things[0].mix, SkipBranch)
        torch.testing.assert_close(reloaded(X), expected)
        torch.testing.assert_close(mask(deepcopy(model), state)(X), expected)
        gone = ('things.0.mix.', 'things.3.net.')
        assert reloaded.state_dict().keys() == {
            name for name in model.state_dict() if not name.startswith(gone)
        }


def test_with_what_is_inside_of_them():
    """A group inside of a removed part changes nothing, wherever the two kinds are asked for."""
    model = net()
    plan = planned(model, 'PreNormSublayers', 'BranchNeurons', 'CoupledChannels')
    kinds = {group.kind for group in plan.groups}
    assert kinds == {'sublayer', 'branch', 'coupled'}
    kept = {n: torch.arange(g.size // 2) for n, g in plan.state.groups.items()}
    kept |= {n: torch.arange(1) for n in kept if n.endswith('#whole')}
    kept |= dict.fromkeys(('things.1.mix#whole', 'things.2.net#whole'), torch.arange(0))
    state = PruneState(plan.state.groups, kept)
    with torch.no_grad():
        one = slim(deepcopy(model), state)(X)
        torch.testing.assert_close(one, mask(deepcopy(model), state)(X), rtol=1e-5, atol=1e-6)


def test_cost_and_scores():
    model = net()
    plan = planned(model, 'PreNormSublayers', budget='params', ratio=0.3)
    slimmed = slim(deepcopy(model), plan.state)
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, slimmed))
    assert plan.result.achieved == pytest.approx(1 - after / before)
    removed = 1 - after / before
    assert 0.3 <= removed < 0.5
    # Fisher's mask scales what a part adds: its gradient by hand
    data = [X]
    plan = build_pruner(
        dict(
            units=[dict(type='PreNormSublayers')], criterion=dict(type='Fisher'),
            budget=dict(type='units', ratio=0.5),
        )
    ).plan(model, data, loss=lambda m, x: m(x).square().sum(), example_inputs=X)  # fmt: skip
    scales = torch.ones(4, 2, requires_grad=True)
    x = model.stem(X)
    for thing, (mix, net_) in zip(model.things, scales, strict=True):
        x = x + mix * thing.mix(x=thing.one(x))[0]
        x = x + net_ * thing.net(thing.two(x))
    model.head(x).square().sum().backward()
    squares = scales.grad.double().square().flatten()
    found = torch.cat([score.double() for score in plan.importance])
    torch.testing.assert_close(found / found.sum(), squares / squares.sum(), rtol=1e-3, atol=1e-6)


def test_min_keep_counts_over_the_model():
    plan = planned(net(), 'PreNormSublayers', ratio=0.9, min_keep=0)
    assert sum(map(len, plan.state.kept.values())) == 0
    with pytest.raises(UserError, match=r'at most 0.625'):
        planned(net(), 'PreNormSublayers', ratio=0.9, min_keep=3)


def test_post_norm_layers_are_refused():
    for kind in ('PreNormLayers', 'PreNormSublayers'):
        with pytest.raises(UserError, match=f'{kind} finds nothing.*computes something else'):
            planned(net(post=True), kind)


def test_without_an_example_input():
    with pytest.raises(UserError, match=r'PreNormSublayers finds nothing.*set prune_cfg.profile'):
        build_pruner(dict(units=[dict(type='PreNormSublayers')])).plan(net())


@pytest.mark.parametrize('name', ['gpt2', 'llama', 'mamba'])
def test_language_models_generate_without_some(name):
    transformers = pytest.importorskip('transformers')
    sizes = dict(
        gpt2=dict(n_embd=32, n_head=4, n_layer=3, n_positions=64),
        llama=dict(
            hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4
        ),
        mamba=dict(hidden_size=32, num_hidden_layers=3, state_size=4),
    )[name]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        name, vocab_size=80, bos_token_id=1, eos_token_id=2, pad_token_id=0, **sizes
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    tokens = torch.randint(3, 80, (2, 6), generator=torch.Generator().manual_seed(0))
    plan = build_pruner(
        dict(units=[dict(type='PreNormSublayers')], budget=dict(type='units', ratio=0.5))
    ).plan(model, example_inputs=dict(input_ids=tokens))
    first = plan.groups[0].name  # its cache counts the tokens
    state = keeping(plan.state, {first, plan.groups[-1].name})
    told = [
        change(deepcopy(model), state).generate(tokens, max_new_tokens=6, do_sample=False).tolist()
        for change in (slim, mask)
    ]
    assert told[0] == told[1]

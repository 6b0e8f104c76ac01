"""Fisher against autograd by explicit gates, and what it must not leave behind or take up."""

from copy import deepcopy

import brute_force as brute
import pytest
import tiny_models as tiny
import torch
from cases import BY_NAME, HEADS, LAYERS, NEURONS
from test_criteria import samples_for
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from projects.prune_plugin import StructuredPruner, UserError
from projects.prune_plugin.calibration import mask_gradients
from projects.prune_plugin.calibration.collect import collect
from projects.prune_plugin.calibration.loss import mmengine_loss, weighted_losses
from projects.prune_plugin.structure.units import Cut, UnitGroup

FISHER = frozenset(('fisher',))


class Batches(list):
    """Calibration batches as they are."""

    seed = 0

    def __iter__(self):
        for number, batch in enumerate(super().__iter__()):
            yield number, len(batch['labels']), batch


ONE = Batches([dict(labels=[0])])


def fisher_of(model, groups, batches, loss=brute.loss_of, kinds=FISHER):
    return collect(model, groups, kinds, batches, loss).fisher


def same(found, expected, rtol=2e-4):
    assert found.keys() == expected.keys()
    for name, scores in expected.items():
        scores = scores.double()
        assert found[name].dtype == torch.float64 and scores.max() > 0, name
        atol = 1e-5 * float(scores.max())
        torch.testing.assert_close(found[name], scores, rtol=rtol, atol=atol, msg=name)


# The definition


@pytest.mark.parametrize('batch_size', [1, 3])
def test_groups_of_heads_are_one_gate(batch_size):
    """A KV head with its four query heads: 32 columns of o_proj; a sample or more at a time."""
    case, samples = BY_NAME['llama-gqa'], samples_for('llama-gqa')
    data = brute.calibration_data(samples, batch_size)
    sizes = {group.name: group.size for group in case.groups()}
    batches = brute.batches(samples, data)
    expected = brute.gates_by_hand(case.dense(), brute.llama_unit, sizes, batches)
    same(fisher_of(case.dense(), case.groups(), data), expected)


READ = [
    'vit', 'vit-swiglu', 'torch_decoder', 'mmcv_decoder', 'cross_attention', 'opt', 'neox', 'gemma3',
    'mmcv_deformable', 'branches-layer_norm', 'resnet18-channel', 'resnet18-coupled', 'fpn',
    'fpn-bn-on_lateral',
]  # fmt: skip


@pytest.mark.parametrize('name', READ)
def test_every_kind_of_reader(name):
    """Also where several modules read the same tensor, and where others than the readers do."""
    case = BY_NAME[name]
    model, groups = case.dense(), case.groups()
    expected = {}
    for group in groups:  # one by one: two groups may have the same reader
        cuts = [c for c in group.cuts if c.side == 'out']
        pieces = [
            [(c.name, c.dim, c.indices(group.size)[u].tolist(), 'out') for c in cuts]
            for u in range(group.size)
        ]
        ones, parameters = brute.gated(model, {group.name: pieces})

        def loss(batch, parameters=parameters):
            inputs = case.inputs()
            output = torch.func.functional_call(model, parameters, inputs)
            return case.loss(lambda *args: output)

        expected |= brute.gate_squares(loss, ones, [dict(labels=[0])])
    found = fisher_of(model, groups, ONE, lambda m, batch: case.loss(m))
    same(found, expected, rtol=2e-3)


@pytest.mark.parametrize('name', ['vit-layers', 'llama-layers', 'opt-layers', 'neox-layers'])
def test_whole_layers_are_gated_by_what_they_add(name):
    case = BY_NAME[name]
    found = fisher_of(case.dense(), case.groups(), ONE, lambda m, batch: case.loss(m))
    model = case.dense()
    ones = {group.name: torch.ones(1, requires_grad=True) for group in case.groups()}
    for group, gate in ones.items():
        layer = model.get_submodule(group)

        def forward(x, *args, run=layer.forward, gate=gate, **kwargs):
            out = run(x, *args, **kwargs)
            if isinstance(out, tuple):
                return (x + gate * (out[0] - x), *out[1:])
            return x + gate * (out - x)

        layer.forward = forward
    loss = case.loss(model)
    expected = torch.autograd.grad(loss, list(ones.values()))
    same(found, {n: g.square() for n, g in zip(ones, expected, strict=True)})


class Twice(nn.Module):
    """A layer that runs twice, on tensors that others read too; called by a keyword."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.fc2, self.side = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(8, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x, gate=1.0, segment=lambda function, x: function(x)):
        for _ in range(2):
            x = segment(lambda x: self.block(x, gate), x)
        return self.head(x)

    def block(self, x, gate):
        hidden = self.fc1(x).relu()
        return x + self.fc2(input=gate * hidden) + self.side(hidden) + hidden[:, :6]


GROUP = UnitGroup(
    'fc1', 'mlp', 8, (Cut('fc1.weight', 0), Cut('fc1.bias', 0), Cut('fc2.weight', 1, side='out'))
)


def data_for_twice(number: int = 4) -> Batches:
    torch.manual_seed(3)
    labels = [torch.randint(0, 5, (n,)) for n in (3, 3, 2, 1)[:number]]
    return Batches(dict(inputs=torch.randn(len(y), 6), labels=y) for y in labels)


def gated_twice() -> dict:
    model, gate = Twice(), torch.ones(8, requires_grad=True)
    batches = [batch for _, _, batch in data_for_twice()]

    def loss(batch):
        return brute.loss_of(lambda x: model(x, gate), batch)

    return brute.gate_squares(loss, {'fc1': gate}, batches)


def test_modules_called_twice_add_up_before_they_are_squared():
    same(fisher_of(Twice(), [GROUP], data_for_twice()), gated_twice())


@pytest.mark.parametrize('reentrant', [False, True])
def test_under_gradient_checkpointing(reentrant):
    """Segments run a second time in the backward pass: each derivative counts once."""

    def loss(model, batch):
        def segment(function, x):
            return checkpoint(function, x, use_reentrant=reentrant)

        inputs = batch['inputs'].clone().requires_grad_()
        return brute.loss_of(lambda x: model(inputs, segment=segment), batch)

    same(fisher_of(Twice(), [GROUP], data_for_twice(), loss), gated_twice())


def test_a_checkpointed_language_model():
    case = BY_NAME['llama-gqa']
    data = brute.calibration_data(samples_for('llama-gqa'))
    plain = fisher_of(case.dense(), case.groups(), data)
    model = case.dense()
    model.gradient_checkpointing_enable()
    for layer in model.model.layers:  # transformers asks each layer whether it is training

        def run(*args, run=layer.forward, **kwargs):
            return checkpoint(run, *args, use_reentrant=False, **kwargs)

        layer.forward = run
    same(fisher_of(model, case.groups(), data), plain, rtol=1e-6)


def test_with_gradients_of_weights_in_the_same_passes():
    """As ByKind may ask: readers' inputs then need a gradient anyway."""
    kinds = FISHER | {'gradients', 'activations'}
    for name in ('vit', 'resnet18-channel'):
        case, data = BY_NAME[name], brute.calibration_data(samples_for(name))
        alone = fisher_of(case.dense(), case.groups(), data)
        same(fisher_of(case.dense(), case.groups(), data, kinds=kinds), alone, rtol=1e-6)


class Weighted(nn.Module):
    """Two losses under names, as MMEngine's models give them."""

    def __init__(self):
        super().__init__()
        self.net = Twice()

    def data_preprocessor(self, data, training):
        return data

    def _run_forward(self, data, mode):
        out = self.net(data['inputs'])
        return dict(loss_a=out[:, 0].square().mean(), loss_b=out[:, 1].mean())

    def parse_losses(self, losses):
        return sum(losses.values()), losses


def test_loss_weights_count():
    cuts = tuple(Cut(f'net.{cut.name}', cut.dim, side=cut.side) for cut in GROUP.cuts)
    group = UnitGroup('net.fc1', 'mlp', 8, cuts)
    batches = data_for_twice()
    pruner = StructuredPruner(
        criterion=dict(type='Fisher'), calibration=dict(loss_weights={'loss_a': 0.0, 'loss_b': 3.0})
    )
    (found,) = pruner.scores(Weighted(), [group], lambda settings: batches)

    def only_b(model, batch):
        losses = model._run_forward(batch, 'loss')
        return 3 * weighted_losses(losses, {})['loss_b']

    expected = fisher_of(Weighted(), [group], batches, only_b)['net.fc1']
    assert torch.allclose(found, expected) and expected.max() > 0
    plain = fisher_of(Weighted(), [group], batches, mmengine_loss)['net.fc1']
    assert not torch.allclose(found, plain)


# What it leaves, and what it takes


@pytest.mark.parametrize('fails', [False, True])
def test_nothing_is_left_behind(fails):
    case = BY_NAME['vit']
    model = case.dense().train()
    model.blocks[1].eval()
    model.blocks[0].attn.qkv.weight.requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    before, random_state = deepcopy(model.state_dict()), torch.get_rng_state()

    def loss(model, batch):
        if fails and batch['labels'].numel() == 1:
            raise KeyboardInterrupt
        return brute.loss_of(model, batch)

    data = brute.calibration_data(samples_for('vit'))
    if fails:
        with pytest.raises(KeyboardInterrupt):
            fisher_of(model, case.groups(), data, loss)
    else:
        fisher_of(model, case.groups(), data, loss)
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(
        m._forward_pre_hooks or m._forward_hooks or m._backward_hooks for m in model.modules()
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_frozen_models_are_scored_alike():
    case, data = BY_NAME['vit'], brute.calibration_data(samples_for('vit'))
    free, frozen = case.dense(), case.dense().requires_grad_(False)
    same(fisher_of(frozen, case.groups(), data), fisher_of(free, case.groups(), data), rtol=0)


class Largest(TorchDispatchMode):
    """Notes the largest result of any operation that is not one of the model's own tensors."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in self.own:
                self.size = max(self.size, x.numel())
        return out


def wide_llama() -> nn.Module:
    """Its smallest weights are larger than its largest activation."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=16,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def test_no_tensor_as_large_as_a_weight():
    pytest.importorskip('transformers')
    pruner = StructuredPruner([HEADS, NEURONS], dict(type='Fisher'))
    model, batch = wide_llama(), dict(inputs=torch.arange(4)[None], labels=torch.tensor([1]))
    groups, _ = pruner.discover(model)
    cut = {c.name for g in groups for c in g.cuts}
    weights = [p.numel() for n, p in model.named_parameters() if n in cut and p.dim() > 1]
    assert min(weights) == 32 * 64
    sizes = {}
    for kinds in (FISHER, frozenset(('gradients',))):
        with Largest(model) as largest:
            statistics = collect(model, groups, kinds, Batches([batch]), brute.loss_of)
        sizes[kinds] = largest.size
    assert sizes[FISHER] < min(weights) / 2 and sizes[frozenset(('gradients',))] == max(weights)
    with_fisher = collect(model, groups, FISHER, Batches([batch]), brute.loss_of)
    assert not with_fisher.gradients and not with_fisher.squared_gradients
    assert sum(x.numel() for x in with_fisher.fisher.values()) == sum(g.size for g in groups)
    assert statistics.fisher == {}


# What it can't score


def test_units_that_nothing_reads_are_refused_before_data_is_read():
    case = BY_NAME['vit']
    unread = UnitGroup('blocks.0.mlp', 'mlp', 192, (Cut('blocks.0.mlp.fc1.weight', 0),))

    def data(settings):
        raise AssertionError('read')

    for criterion in (
        dict(type='Fisher'),
        dict(type='ByKind', default=dict(type='L1'), kinds=dict(mlp=dict(type='Fisher'))),
        dict(type='ByKind', default=dict(type='Fisher'), kinds=dict(mlp=dict(type='L1'))),
    ):
        pruner = StructuredPruner(case.units, criterion)
        with pytest.raises(
            UserError, match='Fisher cannot score blocks.0.mlp: nothing reads a mlp'
        ):
            pruner.scores(case.dense(), [*case.groups()[1:], unread], data, brute.loss_of)


def test_a_kind_of_its_own_beside_units_that_nothing_reads():
    case, data = BY_NAME['vit'], brute.calibration_data(samples_for('vit'))
    unread = UnitGroup('patch_embed', 'other', 48, (Cut('patch_embed.proj.weight', 0),))
    row = dict(type='ByKind', default=dict(type='L1'), kinds=dict(mlp=dict(type='Fisher')))
    groups = [*case.groups(), unread]
    scores = StructuredPruner(case.units, row).scores(
        case.dense(), groups, lambda settings: data, brute.loss_of
    )
    fisher = fisher_of(case.dense(), case.groups(), data)
    for group, score in zip(groups, scores, strict=True):
        if group.kind == 'mlp':
            expected = fisher[group.name] * (score.sum() / fisher[group.name].sum())
            torch.testing.assert_close(score, expected)


def test_a_loss_that_depends_on_no_unit():
    case, data = BY_NAME['vit'], brute.calibration_data(samples_for('vit'))

    def loss(model, batch):
        return torch.ones(())

    with pytest.raises(UserError, match='loss depends on none of the units to be scored'):
        fisher_of(case.dense(), case.groups(), data, loss)


def test_groups_that_the_loss_does_not_depend_on_are_named(monkeypatch):
    case, said = BY_NAME['branches'], []
    monkeypatch.setattr(mask_gradients, 'print_log', lambda message, *args: said.append(message))

    def loss(model, batch):
        return model(*case.inputs())[0].square().sum()

    found = fisher_of(case.dense(), case.groups(), ONE, loss)
    assert said == [
        'the calibration loss does not depend on 1 unit groups (boxes.0 ...): Fisher scores them 0'
    ]
    assert not found['boxes.0'].any() and found['classes.0'].any()


def test_whole_layers_together_with_their_units():
    case = BY_NAME['llama-gqa']
    data = brute.calibration_data(samples_for('llama-gqa'))
    pruner = StructuredPruner([HEADS, NEURONS, LAYERS], dict(type='Fisher'))
    model = tiny.randomised(case.dense())
    groups, _ = pruner.discover(model)
    scores = pruner.scores(model, groups, lambda settings: data, brute.loss_of)
    assert len(scores) == 9 and all(bool((score > 0).all()) for score in scores)

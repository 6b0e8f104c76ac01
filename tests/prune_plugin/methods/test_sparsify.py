"""Pruning a whole model from what its layers read: order, families, ranks, killed runs, refusals."""

from functools import partial
from pathlib import Path

import brute_force as brute
import pytest
import torch
from cases import BY_NAME
from mmengine.config import Config
from mmengine.registry import MODELS
from test_criteria import samples_for
from torch import nn

from projects.prune_plugin import UserError, WeightPruner
from projects.prune_plugin.calibration import layer_inputs
from projects.prune_plugin.common.random_state import seed_everything
from projects.prune_plugin.methods.pruners.layer_progress import LayerProgress
from projects.prune_plugin.workflows.prune import data_factory, pruner_from_config

METHODS = [
    dict(type='SparseGPT'),
    dict(type='SparseGPT', pattern='2:4'),
    dict(type='Wanda'),
]
CONFIGS = Path(__file__).parents[3] / 'projects' / 'configs'


class SmallCNN(nn.Module):
    """Convolutions with strides, strings as paddings, circular ones, and a layer that runs twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.same = nn.Conv2d(8, 8, 3, padding='same')
        self.round = nn.Conv2d(8, 8, 3, padding=1, padding_mode='circular')
        self.short = nn.Conv2d(8, 16, 1, stride=2, bias=False)
        self.long = nn.Conv2d(8, 16, 2, stride=2)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu_()
        x = self.round(self.same(self.same(x)).relu_())
        x = self.short(x) + self.long(x)
        return self.fc(x.relu_().mean((2, 3)))


def small_cnn() -> nn.Module:
    torch.manual_seed(5)
    return SmallCNN().eval()


def fresh(family: str) -> nn.Module:
    return small_cnn() if family == 'cnn' else BY_NAME[family].dense()


def batches_of(family: str, batch_size: int = 3):
    return brute.calibration_data(samples_for('vit' if family == 'cnn' else family), batch_size)


def pruned(family: str, sparsifier: dict, batch_size: int = 3, progress=None, model=None, **kwargs):
    """The pruned model and its masks."""
    exclude = ['stem'] if family == 'cnn' and 'pattern' in sparsifier else []
    pruner = WeightPruner(sparsifier, **{'exclude': exclude, **kwargs})
    model = fresh(family) if model is None else model
    data = batches_of(family, batch_size)
    return model, pruner.sparsify(model, lambda _: data, brute.loss_of, progress=progress)


def first_inputs(model: nn.Module, path: str, family: str) -> list[torch.Tensor]:
    """What the layer reads in plain forward passes when it first runs."""
    read = []
    layer = model.get_submodule(path)
    for batch in brute.batches(
        samples_for('vit' if family == 'cnn' else family), batches_of(family)
    ):
        inputs = []
        handle = layer.register_forward_pre_hook(
            lambda m, a, inputs=inputs: inputs.append(a[0] + 0)
        )
        with torch.no_grad():
            brute.loss_of(model, batch)
        handle.remove()
        read.append(inputs[0])
    return read


ORDER = {
    'cnn': [['stem'], ['same'], ['round'], ['short'], ['long'], ['fc']],
    'vit': [
        ['patch_embed.proj'],
        *([f'blocks.{i}.{x}'] for i in range(3) for x in ('attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2')),
        ['head'],
    ],
    'llama-gqa': [
        *(
            [f'model.layers.{i}.{name}' for name in names]
            for i in range(3)
            for names in (
                ('self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'), ('self_attn.o_proj',),
                ('mlp.gate_proj', 'mlp.up_proj'), ('mlp.down_proj',),
            )
        ),
        ['lm_head'],
    ],
}  # fmt: skip


@pytest.mark.parametrize('family', list(ORDER))
@pytest.mark.parametrize('sparsifier', METHODS[:2], ids=lambda row: '-'.join(row.values()))
def test_as_layer_by_layer_with_plain_passes(family, sparsifier):
    """Bit for bit: prune one layer, run the changed model anew, prune the next."""
    sparsifier = dict(sparsifier, dense_targets=0)
    found, masks = pruned(family, sparsifier, budget=dict(ratio=0.5))
    model = fresh(family)
    method = WeightPruner(sparsifier, budget=dict(ratio=0.5)).sparsifier
    for layers in ORDER[family]:
        if f'{layers[0]}.weight' not in masks:
            continue
        layer = model.get_submodule(layers[0])
        statistic = method.statistic(layer, first_inputs(model, layers[0], family))
        weights = {path: model.get_submodule(path).weight.detach().flatten(1) for path in layers}
        for path, done in method.prune(weights, statistic, dict.fromkeys(layers, 0.5)).items():
            weight = model.get_submodule(path).weight
            weight.data.copy_(done[0].view(weight.shape))
            assert torch.equal(masks[f'{path}.weight'], done[1].view(weight.shape)), path
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, found.state_dict()[name]), name


@pytest.mark.parametrize('family', list(ORDER))
@pytest.mark.parametrize('pattern', [None, '2:4'])
def test_wanda_looks_at_the_model_as_it_is(family, pattern):
    """Every run of every layer, in plain passes of the dense model; then all layers by themselves."""
    sparsifier = dict(type='Wanda', **(dict(pattern=pattern) if pattern else {}))
    model, masks = pruned(family, sparsifier, budget=dict(ratio=0.5))
    dense, method = fresh(family), WeightPruner(sparsifier, budget=dict(ratio=0.5)).sparsifier
    read: dict[str, list] = {}
    for name in masks:
        path = name.rpartition('.')[0]
        dense.get_submodule(path).register_forward_pre_hook(
            lambda m, a, path=path: read.setdefault(path, []).append(a[0] + 0)
        )
    for batch in brute.batches(
        samples_for('vit' if family == 'cnn' else family), batches_of(family)
    ):
        with torch.no_grad():
            brute.loss_of(dense, batch)
    for name, keep in masks.items():
        layer = dense.get_submodule(name.rpartition('.')[0])
        rows = torch.cat([layer_inputs.input_rows(layer, x) for x in read[name[: -len('.weight')]]])
        norms = rows.double().square().mean(0).sqrt()
        found = method.prune({name: layer.weight.detach().flatten(1)}, norms, {name: 0.5})[name]
        assert torch.equal(keep, found[1].view(keep.shape)), name
        assert torch.equal(model.get_parameter(name), layer.weight * keep)
    twice = len(read['same']) if family == 'cnn' else 0
    assert twice in (0, 6)


def test_modes_gradients_and_random_numbers_are_left_alone():
    model = small_cnn().train()
    model.norm.eval()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    before = model.norm.running_mean.clone()
    pruned('cnn', dict(type='Wanda'), model=model)
    assert torch.equal(torch.rand(2), expected) and torch.equal(model.norm.running_mean, before)
    assert model.training and model.fc.training and not model.norm.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


# A killed run


@pytest.mark.parametrize('sparsifier', METHODS[:1], ids=lambda row: row['type'])
def test_killed_and_resumed(sparsifier, tmp_path, monkeypatch):
    """The same weights and masks as without a break; the damaged file's layers are done again."""
    whole, masks = pruned('llama-gqa', sparsifier)
    pruner, model = WeightPruner(sparsifier), fresh('llama-gqa')
    method, calls = pruner.sparsifier, []
    prune = method.prune

    def fails(*args):
        calls.append(list(args[0]))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return prune(*args)

    monkeypatch.setattr(method, 'prune', fails)
    progress = LayerProgress(tmp_path / 'progress', {'ratio': 0.3})
    with pytest.raises(KeyboardInterrupt):
        pruner.sparsify(model, lambda _: batches_of('llama-gqa'), brute.loss_of, progress=progress)
    files = sorted((tmp_path / 'progress').iterdir())
    assert [file.name for file in files] == [f'{number:04d}.pth' for number in range(5)]
    files[2].write_bytes(files[2].read_bytes()[:100])
    files[3].write_bytes(b'')
    torch.save({'weight': torch.zeros(1)}, files[4])

    calls.clear()
    monkeypatch.setattr(method, 'prune', lambda *args: calls.append(list(args[0])) or prune(*args))
    model = fresh('llama-gqa')
    progress = LayerProgress(tmp_path / 'progress', {'ratio': 0.3})
    again = pruner.sparsify(
        model, lambda _: batches_of('llama-gqa'), brute.loss_of, progress=progress
    )
    assert len(calls) == 13 - 2 and calls[0][0].endswith('0.mlp.gate_proj.weight')
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
    assert all(torch.equal(keep, again[name]) for name, keep in masks.items())
    progress.clear()
    assert not (tmp_path / 'progress').exists()


def test_progress_of_another_run_is_not_used(tmp_path):
    """Whatever differs: the settings, or the checkpoint."""
    pruned('cnn', dict(type='Wanda'), progress=LayerProgress(tmp_path, {'ratio': 0.9}),
           budget=dict(ratio=0.9))  # fmt: skip
    alone, masks = pruned('cnn', dict(type='Wanda'))
    other, again = pruned(
        'cnn', dict(type='Wanda'), progress=LayerProgress(tmp_path, {'ratio': 0.3})
    )
    assert all(torch.equal(keep, again[name]) for name, keep in masks.items())
    assert all(
        torch.equal(a, b) for a, b in zip(alone.parameters(), other.parameters(), strict=True)
    )


# Ratios


def test_layer_ratios():
    ratios = {r'.*q_proj': 0.75, r'model\.layers\.1\.mlp': 0.25}
    for sparsifier in (dict(type='SparseGPT'), dict(type='Wanda'), dict(type='Magnitude')):
        _, masks = pruned('llama-gqa', sparsifier, layer_ratios=ratios, budget=dict(ratio=0.5))
        for name, keep in masks.items():
            ratio = 0.75 if 'q_proj' in name else 0.25 if 'layers.1.mlp' in name else 0.5
            rows = len(keep) if sparsifier['type'] == 'Wanda' else 1
            assert int((~keep).sum()) == rows * round(ratio * keep.numel() / rows), name


def test_density_is_what_stays():
    found, masks = pruned('cnn', dict(type='SparseGPT'), budget=dict(density=0.1))
    same, again = pruned('cnn', dict(type='SparseGPT'), budget=dict(ratio=0.9))
    assert all(torch.equal(keep, again[name]) for name, keep in masks.items())
    assert all(
        torch.equal(a, b) for a, b in zip(found.parameters(), same.parameters(), strict=True)
    )
    assert WeightPruner(budget=dict(density=0.1)).budget.ratio == 0.9
    assert (
        WeightPruner(dict(type='Wanda', pattern='2:4'), budget=dict(density=0.5)).budget.ratio
        == 0.5
    )


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        (dict(budget=dict(ratio=0.9, density=0.1)), 'has ratio=0.9 .* and density=0.1 .* give one'),
        (dict(budget=dict(sparsity=0.9)), 'budget.sparsity=0.9 is ambiguous; give ratio'),
        (dict(budget=dict(density=1.5)), r'density is 1.5; it must be a number in \(0, 1\)'),
        (dict(budget=dict(density=True)), 'density is True'),
        (dict(layer_ratios=[0.5]), r'layer_ratios is \[0.5\]; it must be a dict'),
        (dict(layer_ratios={'a': 1.5}), r"layer_ratios\['a'\] is 1.5; it must be in \(0, 1\)"),
        (dict(layer_ratios={'(': 0.5}), r"layer_ratios: '\(' is no regular expression"),
        (dict(layer_ratios={5: 0.5}), 'layer_ratios: 5 is no regular expression'),
        (
            dict(sparsifier=dict(type='Wanda', pattern='2:4'), budget=dict(ratio=0.7)),
            'budget.ratio is 0.7, but pattern 2:4 removes 0.5',
        ),
        (
            dict(sparsifier=dict(type='Wanda', pattern='2:4'), layer_ratios={'a': 0.7}),
            r"layer_ratios\['a'\] is 0.7, but pattern 2:4 removes 0.5",
        ),
    ],
)  # fmt: skip
def test_bad_ratios(keys, message):
    with pytest.raises(UserError, match=message):
        WeightPruner(**keys)


# What can't be pruned


def untouched(family: str, message: str, sparsifier: dict, model=None, **kwargs):
    model = fresh(family) if model is None else model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=message):
        pruned(family, sparsifier, model=model, **kwargs)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.nan_to_num(7), before[name].nan_to_num(7)), name


def test_refused_before_anything_is_touched():
    wanda = dict(type='Wanda')
    untouched('cnn', r"layer_ratios: 'nope' matches nothing", wanda, layer_ratios={'nope': 0.5})
    untouched(
        'cnn', '2:4 does not divide stem.weight, whose rows hold 27', dict(wanda, pattern='2:4'),
        exclude=[],
    )  # fmt: skip
    untouched('torch_encoder', 'layers.0.self_attn is a MultiheadAttention; from their', wanda)
    model = small_cnn()
    model.same.weight.data[0, 0, 0, 0] = torch.nan
    untouched('cnn', 'same.weight holds NaN or infinite numbers', wanda, model)
    model = small_cnn()
    model.idle = nn.Linear(3, 4)
    untouched('cnn', '^idle does not run in the forward pass', wanda, model)
    model = small_cnn()
    model.grouped = nn.Conv2d(8, 8, 3, groups=2)
    untouched('cnn', 'grouped is a Conv2d; .* of one group', wanda, model)
    with pytest.raises(UserError, match='sparsifier Wanda needs calibration data'):
        WeightPruner(wanda).sparsify(small_cnn())


@pytest.mark.parametrize('sparsifier', METHODS[::2], ids=lambda row: row['type'])
def test_nan_from_a_layer_that_is_not_pruned(sparsifier):
    model = BY_NAME['llama-gqa'].dense()
    model.model.layers[1].input_layernorm.weight.data[0] = torch.nan
    names = ', '.join(rf'model.layers.1.self_attn.{x}_proj.weight' for x in 'qkv')
    with pytest.raises(UserError, match=f'^{names} reads NaN or infinite numbers'):
        pruned('llama-gqa', sparsifier, model=model)
    assert not any(module._forward_pre_hooks for module in model.modules())


# Other families


def test_a_classifier_under_its_config():
    pytest.importorskip('timm')
    cfg = Config.fromfile(CONFIGS / 'ViT' / 'vit_tiny_digits.py')
    cfg.model.model_kwargs.depth = 2
    cfg.prune_cfg = dict(
        type='WeightPruner', sparsifier=dict(type='SparseGPT'), budget=dict(ratio=0.7),
        exclude=['.*head'], calibration=dict(num_samples=12, batch_size=4),
    )  # fmt: skip
    pruner = pruner_from_config(cfg)
    seed_everything(0)
    model = MODELS.build(cfg.model)
    masks = pruner.sparsify(model, data_factory(cfg, pruner))
    assert len(masks) == 1 + 2 * 4
    for name, keep in masks.items():
        assert int((~keep).sum()) == round(0.7 * keep.numel())
        assert (model.get_parameter(name)[~keep] == 0).all()


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_language_model(dtype):
    pytest.importorskip('transformers')
    import projects.llm  # noqa: F401  registers the model

    shape = dict(
        model_type='llama', vocab_size=96, hidden_size=32, intermediate_size=48,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    seed_everything(0)
    model = MODELS.build(dict(type='HFCausalLM', architecture=shape, dtype=dtype))
    texts = [dict(inputs=torch.randint(0, 96, (16,))) for _ in range(8)]
    pruner = WeightPruner(dict(type='SparseGPT'), exclude=['lm.lm_head'], budget=dict(ratio=0.5))
    data = brute.calibration_data(texts)
    masks = pruner.sparsify(model, lambda _: data)
    assert len(masks) == 2 * 7
    for name, keep in masks.items():
        weight = model.get_parameter(name)
        assert int((~keep).sum()) == keep.numel() // 2 and (weight[~keep] == 0).all()
        assert weight.dtype == getattr(torch, dtype)


def test_random_numbers_of_a_batch_are_its_own():
    """A loss that draws numbers draws the same for a batch, whichever batches run beside it."""

    def noisy(model, batch, drawn):
        x = batch['inputs'] + torch.rand(1)
        model.fc(model.stem(x).mean((2, 3)).repeat(1, 2) + torch.rand(1))
        drawn.append(torch.rand(1))

    def seen(batch_numbers):
        data = batches_of('cnn')
        data.batches = [data.batches[i] for i in batch_numbers]
        read = []
        model = small_cnn()
        model.fc.register_forward_pre_hook(lambda m, a: read.append(a[0].clone()))
        pruner = WeightPruner(dict(type='Wanda'), include=['stem', 'fc'])
        pruner.sparsifier.statistic = lambda module, inputs, dense: torch.ones(
            module.weight[0].numel(), dtype=torch.float64
        )
        pruner.sparsify(model, lambda _: data, partial(noisy, drawn=[]))
        return read[1:]  # without the pass that looks for the steps

    alone, beside = seen([0]), seen([0, 1, 2])
    assert len(alone) == 1 and len(beside) == 3 and torch.equal(alone[0], beside[0])

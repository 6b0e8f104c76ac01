"""Low-rank adapters: merged in every checkpoint, zeros kept, base frozen, resumed bit for bit."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import toy
from mmengine.config import Config
from mmengine.registry import MODELS
from recovering import config, killed, pruned, recovered, same
from torch import nn

from projects.prune_plugin import UserError
from projects.prune_plugin.checkpoints.checkpoint_file import (
    load_file,
    load_weights,
    use_safe_loader,
)
from projects.prune_plugin.checkpoints.model_loading import load_model
from projects.prune_plugin.common.settings import read_settings
from projects.prune_plugin.training.config_edits import check_trainable, use_slim_model
from projects.prune_plugin.training.lora.adapters import add_adapters, lora_layers, plain_parameters
from projects.prune_plugin.training.settings import RecoverySettings

pytest.importorskip('peft')
from projects.prune_plugin.training.lora.lora_linear import MaskedAdapters, masked_update  # noqa: E402

KINDS = ('dense', 'slim', 'masked')
NORM = dict(toy.MODEL, norm=True)
LORA = dict(r=2, alpha=8, targets=[r'mlp\.fc'], lr=0.1)


@pytest.fixture
def tmp_path(tmp_path, monkeypatch):
    """A relative path: the Runner writes configs out, and yapf takes seconds over long ones."""
    monkeypatch.chdir(tmp_path)
    return Path()


@pytest.fixture(autouse=True)
def safe_loader():
    """As the tools do."""
    from mmengine.runner.checkpoint import CheckpointLoader

    schemes = dict(CheckpointLoader._schemes)
    use_safe_loader()
    yield
    CheckpointLoader._schemes = schemes


def train(path, folder, lora=LORA, cfg=None, how=recovered, **block):
    return how(path, folder, cfg=cfg or config(), lora=dict(lora), **block)


@torch.no_grad()
def loss_of(model) -> torch.Tensor:
    data = toy.ToyData()
    model.eval()
    return model(data.inputs, data.labels, mode='loss')['loss']


@pytest.mark.parametrize('kind', KINDS)
def test_checkpoints_hold_merged_weights(kind, tmp_path):
    path = pruned(tmp_path, kind, toy.MODEL)
    run = train(path, tmp_path / 'work')
    start, last = load_file(path), load_file(tmp_path / 'work' / 'latest.pth')
    assert last['state_dict'].keys() == start['state_dict'].keys()
    assert last['meta']['epoch'] == 4
    assert last['meta'].get('prune_state') == start['meta'].get('prune_state')
    plain = load_model(config(), str(tmp_path / 'work' / 'latest.pth')).model
    before = load_model(config(), str(path)).model
    ours, theirs, first = loss_of(run.model), loss_of(plain), loss_of(before)
    assert theirs < first - 0.01
    if kind == 'masked':
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('kind', KINDS)
def test_only_adapters_are_trained(kind, tmp_path):
    path = pruned(tmp_path, kind, toy.MODEL)
    run = train(path, tmp_path / 'work', dict(LORA, targets=[r'.*fc1']))
    start, last = load_file(path), load_file(tmp_path / 'work' / 'latest.pth')
    for name, weight in start['state_dict'].items():
        parameter = plain_parameters(run.model)[name]
        assert torch.equal(parameter, weight) and not parameter.requires_grad
        assert torch.equal(last['state_dict'][name], weight) == (name != 'mlp.fc1.weight')
    assert list(last['lora']['base']) == ['mlp.fc1.weight']
    assert torch.equal(
        last['lora']['base']['mlp.fc1.weight'], start['state_dict']['mlp.fc1.weight']
    )
    assert len(last['lora']['adapters']) == len(last['optimizer']['state']) == 2
    steps = {int(entry['step']) for entry in last['optimizer']['state'].values()}
    assert steps == {6}, "the dense training's moments belong to other parameters"


@pytest.mark.parametrize('dropout', [0.0, 0.3])
@pytest.mark.parametrize('wrapper', ['OptimWrapper', 'Bf16OptimWrapper'])
def test_zeros_stay(dropout, wrapper, tmp_path):
    path = pruned(tmp_path, 'masked', toy.MODEL)
    cfg = config(wrapper=dict(type=wrapper, accumulative_counts=2))
    run = train(path, tmp_path / 'work', dict(LORA, dropout=dropout), cfg)
    start, last = (load_file(p)['state_dict'] for p in (path, tmp_path / 'work' / 'latest.pth'))
    for name in ('mlp.fc1.weight', 'mlp.fc2.weight'):
        gone = start[name] == 0
        assert gone.any() and torch.equal(last[name] == 0, gone)
        assert (last[name] != start[name])[~gone].any()
    plain = MODELS.build(dict(toy.MODEL))
    plain.load_state_dict(last)
    assert torch.equal(loss_of(run.model), loss_of(plain))


@pytest.mark.parametrize('kind', KINDS)
def test_killed_and_resumed_is_uninterrupted(kind, tmp_path):
    """With batch norms, whose running statistics go on, and dropout on the adapters."""
    path = pruned(tmp_path, kind, NORM)
    how = dict(lora=dict(LORA, dropout=0.2), cfg=config(NORM))
    train(path, tmp_path / 'whole', **how)
    train(path, tmp_path / 'part', how=killed, **how)
    train(path, tmp_path / 'part', resume=tmp_path / 'part' / 'epoch_3.pth', **how)
    whole, part = (load_file(tmp_path / f / 'epoch_4.pth') for f in ('whole', 'part'))
    assert same(part['state_dict'], whole['state_dict'])
    assert same(part['lora']['adapters'], whole['lora']['adapters'])
    assert same(part['lora']['base'], whole['lora']['base'])


def test_the_written_config_trains_and_tests(tmp_path):
    """What the Runner leaves in the work directory builds adapters again, on a slim model too."""
    path = pruned(tmp_path, 'slim', toy.MODEL)
    train(path, tmp_path / 'work')
    (file,) = (tmp_path / 'work').glob('*.py')
    cfg = Config.fromfile(file)
    assert cfg.model.type == 'LoraModel' and cfg.model.model.type == 'SlimModel'
    latest = str(tmp_path / 'work' / 'latest.pth')
    use_slim_model(cfg, latest)
    assert cfg.model.model.model.type == 'ToyModel' and cfg.model.model.prune_state == latest
    model = MODELS.build(cfg.model)
    for layer in dict(lora_layers(model)).values():
        nn.init.ones_(layer.adapters()['lora_B.default.weight'])
    load_weights(model, load_file(latest), latest)  # adapters end at zero, or it were counted twice
    assert torch.equal(loss_of(model), loss_of(load_model(cfg, latest).model))


def test_resuming_needs_adapters(tmp_path):
    path = pruned(tmp_path, 'dense', toy.MODEL)
    with pytest.raises(UserError, match=r'dense_pruned.pth holds no adapters to resume'):
        train(path, tmp_path / 'work', resume=path)


def reference(x, weight, bias, a, b, scaling, merge):
    update = torch.where(weight != 0, b @ a * scaling, 0.0)
    return F.linear(x, weight + update if merge else update, bias)


@pytest.mark.parametrize('merge', [True, False])
def test_gradients_of_masked_adapters(merge):
    def drawn(*shape, grad=True):
        return torch.randn(shape, dtype=torch.float64, requires_grad=grad)

    x, a, b = drawn(2, 3, 5), drawn(2, 5), drawn(4, 2)
    weight, bias = drawn(4, 5, grad=False), drawn(4, grad=False)
    weight[torch.rand(4, 5) < 0.5] = 0
    inputs = (x, weight, bias, a, b, 1.5, merge)
    assert torch.equal(MaskedAdapters.apply(*inputs), reference(*inputs))

    def gradients(function):
        return torch.autograd.grad((function(*inputs) ** 3).sum(), (x, a, b))

    for ours, theirs in zip(gradients(MaskedAdapters.apply), gradients(reference), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_masked_weights_keep_nothing_for_the_backward_pass():
    """Beside its arguments, no tensor of the weight's size."""
    x, weight = torch.randn(3, 64), torch.randn(64, 64)
    a, b = torch.randn(2, 64, requires_grad=True), torch.randn(64, 2, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda t: t):
        MaskedAdapters.apply(x, weight, None, a, b, 1.0, True)
    assert {t.data_ptr() for t in saved} <= {t.data_ptr() for t in (x, weight, a, b)}
    assert torch.equal(masked_update(weight * 0, a, b, 1.0, True), torch.zeros(64, 64))


class Odd(nn.Module):
    """A tied pair, an attention that reads its output layer's weight, and a plain layer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.attn = nn.MultiheadAttention(4, 2)
        self.plain = nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight


def test_layers_that_cannot_be_merged_are_left_out():
    model = add_adapters(Odd())
    assert [name for name, _ in lora_layers(model)] == ['plain']
    with pytest.raises(UserError, match=r"targets: 'head' matches nothing; .* are plain"):
        add_adapters(Odd(), ['plain', 'head'])
    with pytest.raises(UserError, match='Embedding has no linear layer'):
        add_adapters(nn.Embedding(3, 3))


def test_adapters_of_half_precision_weights_are_float32():
    """And the masked layer computes what its merged weight does."""
    layer = nn.Linear(8, 8, dtype=torch.bfloat16)
    layer.weight.data[:4] = 0
    model = add_adapters(nn.Sequential(layer))
    adapted = model[0]
    adapted.masked = True
    assert {tensor.dtype for tensor in adapted.adapters().values()} == {torch.float32}
    nn.init.normal_(adapted.adapters()['lora_B.default.weight'])
    x = torch.randn(3, 8, dtype=torch.bfloat16)
    plain = model.state_dict()
    assert torch.equal(adapted(x), F.linear(x, plain['0.weight'], plain['0.bias']))
    adapted(x).float().square().sum().backward()
    assert all(tensor.grad.any() for tensor in adapted.adapters().values())


@pytest.mark.parametrize(
    ('lora', 'message'),
    [
        (True, 'lora is True; it must be a dict'),
        (dict(rank=8), 'lora.rank is not a key; valid are r, alpha, dropout, targets, lr'),
        (dict(r=0), 'lora.r is 0; it must be a whole number >= 1'),
        (dict(alpha=-1), 'lora.alpha is -1; it must be a number > 0'),
        (dict(dropout=1.0), 'lora.dropout is 1.0; it must be a number >= 0 and < 1'),
        (dict(targets='fc1'), "lora.targets is 'fc1'; it must be a list of regular expressions"),
        (dict(targets=['(']), r"lora.targets: '\(' is no regular expression"),
        (dict(lr=0), 'lora.lr is 0; it must be a number > 0'),
    ],
)
def test_bad_keys_are_named(lora, message):
    with pytest.raises(UserError, match=rf'prune_cfg\.recovery\.{message}'):
        read_settings(RecoverySettings, dict(lora=lora), 'prune_cfg.recovery')


def test_an_ema_is_refused_first():
    cfg = config(custom_hooks=[dict(type='EMAHook')])
    with pytest.raises(UserError, match=r"recovery.lora doesn't go with the EMAHook"):
        check_trainable(cfg, RecoverySettings(lora=dict()))
    assert cfg.model.type == 'ToyModel'


def test_without_peft_it_says_what_to_install(monkeypatch):
    import projects.prune_plugin.training.lora.adapters as module

    monkeypatch.setattr(module, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match='lora needs the package peft, .* pip install peft'):
        RecoverySettings(lora=dict())

"""Single weights in what is no linear layer by name: GPT-2's Conv1D, stacked experts."""

import pytest
import torch
from torch import nn

from projects.prune_plugin import build_pruner
from projects.prune_plugin.methods.pruners import unstructured

transformers = pytest.importorskip('transformers')
TOKENS = [
    torch.randint(3, 60, (2, 10), generator=torch.Generator().manual_seed(i)) for i in range(3)
]
DATA = dict(vocab_size=60, bos_token_id=1, eos_token_id=2, pad_token_id=0)


def loss(model, batch):
    return model(input_ids=batch, labels=batch).loss


def noisy(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_embd=16, n_head=2, n_layer=2, n_positions=16, **DATA)
    return noisy(transformers.GPT2LMHeadModel(config))


def mixtral():
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=4, **DATA,
    )  # fmt: skip
    return noisy(transformers.MixtralForCausalLM(config))


def pruned(model, kind, ratio=0.5):
    pruner = build_pruner(
        dict(type='WeightPruner', sparsifier=dict(type=kind), budget=dict(ratio=ratio))
    )
    plan = pruner.plan(model, TOKENS, loss=loss)
    return plan, pruner.apply(model, plan, TOKENS, loss=loss)


def as_linears(model):
    """The same model with linear layers in the place of Conv1D."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == 'Conv1D':
                linear = nn.Linear(*child.weight.shape)
                linear.weight.data, linear.bias.data = child.weight.data.T.clone(), child.bias.data
                setattr(module, name, linear)
    return model


@pytest.mark.parametrize('kind', ['Magnitude', 'Wanda', 'SparseGPT'])
def test_conv1d_is_pruned_as_the_linear_layer_that_it_is(kind):
    model, linear = gpt2(), as_linears(gpt2())
    torch.testing.assert_close(loss(model, TOKENS[0]), loss(linear, TOKENS[0]))
    _, one = pruned(model, kind)
    _, other = pruned(linear, kind)
    assert one.masks.keys() == other.masks.keys() and len(one.masks) == 8
    for name, keep in one.masks.items():
        assert keep.shape == model.get_parameter(name).shape
        assert torch.equal(keep.T, other.masks[name])
        weights = model.get_parameter(name), linear.get_parameter(name)
        torch.testing.assert_close(weights[0].T, weights[1], rtol=1e-4, atol=1e-5)


def test_magnitude_takes_stacked_experts():
    model = mixtral()
    _, found = pruned(model, 'Magnitude')
    experts = [name for name in found.masks if 'experts' in name]
    assert len(experts) == 4
    zeros = sum(int((model.get_parameter(n) == 0).sum()) for n in found.masks)
    total = sum(m.numel() for m in found.masks.values())
    everything = sum(
        p.numel() for n, p in model.named_parameters()
        if p.dim() > 1 and 'embed' not in n and 'lm_head' not in n and 'gate.weight' not in n
    )  # fmt: skip
    assert zeros / total == pytest.approx(0.5, abs=0.001) and total >= everything


@pytest.mark.parametrize('kind', ['Wanda', 'SparseGPT'])
def test_what_is_left_out_is_said(kind, monkeypatch):
    said = []
    monkeypatch.setattr(unstructured, 'print_log', lambda text, *_: said.append(text))
    plan, found = pruned(mixtral(), kind)
    assert not [name for name in found.masks if 'experts' in name]
    assert len(said) == 1 and f'{kind} leaves out 4 weights' in said[0]
    assert '% of all that multiply' in said[0]
    assert sum('experts' in name for name in plan.scored.refused) == 4

"""Models that want a say in what is loaded, and in what is kept beside their weights."""

import pytest
import torch
from torch import nn

from projects.prune_plugin import UserError
from projects.prune_plugin.checkpoints.checkpoint_file import (
    adapted,
    load_file,
    load_weights,
    model_meta,
    save_file,
)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)


class Adapting(Plain):
    """Drops ``extra``, renames ``old.``, wants one unit."""

    def __init__(self, unit: str = 'm'):
        super().__init__()
        self.unit = unit

    def checkpoint_meta(self):
        return dict(unit=self.unit)

    def adapt_checkpoint(self, checkpoint, path):
        if (unit := (checkpoint.get('meta') or {}).get('unit', self.unit)) != self.unit:
            raise UserError(f'checkpoint {path} has unit {unit}; {self.unit} is valid')
        state = checkpoint['state_dict']
        state = {k.replace('old.', 'layer.'): v for k, v in state.items() if k != 'extra'}
        return {**checkpoint, 'state_dict': state}


@pytest.fixture
def checkpoint() -> dict:
    weights = Plain().state_dict()
    renamed = {k.replace('layer.', 'old.'): v for k, v in weights.items()}
    return dict(meta=dict(unit='m', epoch=3), state_dict={**renamed, 'extra': torch.zeros(1)})


def test_models_without_the_methods_say_nothing(checkpoint):
    assert model_meta(Plain()) == {}
    found = adapted(Plain(), checkpoint, 'a.pth')
    assert found == checkpoint and found is not checkpoint


def test_meta_of_a_model():
    assert model_meta(Adapting('cm')) == dict(unit='cm')


def test_adapted_leaves_the_given_checkpoint_alone(checkpoint):
    before = dict(checkpoint), dict(checkpoint['state_dict'])
    found = adapted(Adapting(), checkpoint, 'a.pth')
    assert sorted(found['state_dict']) == ['layer.bias', 'layer.weight']
    assert found['meta'] is checkpoint['meta']
    assert (checkpoint, checkpoint['state_dict']) == before


def test_weights_are_adapted_before_they_are_compared(checkpoint):
    model = Adapting()
    load_weights(model, checkpoint, 'a.pth')
    assert torch.equal(model.layer.weight, checkpoint['state_dict']['old.weight'])
    with pytest.raises(UserError, match='2 missing.*3 unexpected'):
        load_weights(Plain(), checkpoint, 'a.pth')


def test_what_is_left_over_is_still_an_error(checkpoint):
    checkpoint['state_dict']['more'] = torch.zeros(1)
    with pytest.raises(UserError, match=r'1 unexpected \(more\)'):
        load_weights(Adapting(), checkpoint, 'a.pth')


def test_weights_of_a_wrapped_model(checkpoint):
    """``module.`` comes off after the model had its say."""
    state = {f'module.{k}': v for k, v in Plain().state_dict().items()}
    model = Adapting()
    load_weights(model, dict(state_dict=state), 'a.pth')
    assert torch.equal(model.layer.bias, state['module.layer.bias'])


def test_refusal_leaves_the_model_alone(checkpoint):
    model = Adapting('cm')
    before = model.layer.weight.clone()
    with pytest.raises(UserError, match='a.pth has unit m; cm is valid'):
        load_weights(model, checkpoint, 'a.pth')
    assert torch.equal(model.layer.weight, before)


def test_round_trip_through_a_file(tmp_path):
    model = Adapting()
    path = tmp_path / 'own.pth'
    save_file(dict(meta=model_meta(model), state_dict=model.state_dict()), path)
    twin = Adapting()
    load_weights(twin, load_file(path), path)
    assert torch.equal(twin.layer.weight, model.layer.weight)
    with pytest.raises(UserError, match=r'own\.pth has unit m'):
        load_weights(Adapting('cm'), load_file(path), path)

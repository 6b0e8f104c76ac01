"""Checkpoints to hand out: what is in them, and that they load like any other."""

import pytest
import torch
from test_seal import Net, slim_checkpoint

from projects.prune_plugin import UserError
from projects.prune_plugin.checkpoints.checkpoint_file import load_file, load_weights, save_file
from projects.prune_plugin.checkpoints.publish import published


def training():
    """A checkpoint as a training leaves it."""
    model = Net()
    weights = {f'module.{k}': v for k, v in model.state_dict().items()}
    weights['module.auxiliary.0.weight'] = torch.ones(3)
    weights['module.count'] = torch.tensor(7)
    meta = dict(epoch=3, iter=90, cfg='model = dict()', hostname='here', norm=dict(mean=[1.0]))
    return model, dict(
        state_dict=weights, meta=meta, optimizer=dict(state={}), message_hub=dict(a=1)
    )


def test_weights_alone_are_left():
    model, checkpoint = training()
    result = published(checkpoint, torch.float16, ['auxiliary.'])
    assert result.keys() == {'meta', 'state_dict'} and result['meta'] == dict(norm=dict(mean=[1.0]))
    expected = {k: v.half() for k, v in model.state_dict().items()} | dict(count=torch.tensor(7))
    assert result['state_dict'].keys() == expected.keys()
    assert all(torch.equal(v, result['state_dict'][k]) for k, v in expected.items())
    assert checkpoint['state_dict']['module.layers.0.norm1.weight'].dtype == torch.float32


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_a_slim_one_loads_like_any_other(tmp_path, dtype):
    checkpoint = slim_checkpoint()
    path = tmp_path / 'slim.pth'
    save_file(published(checkpoint, dtype), path)
    content = load_file(path)  # with its seal
    assert content['meta']['prune_state'] == checkpoint['meta']['prune_state']
    from projects.prune_plugin import prune_state_of, slim

    model = slim(Net(), prune_state_of(content))
    load_weights(model, content, path)
    for name, weight in checkpoint['state_dict'].items():
        found = model.state_dict()[name]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, weight, rtol=2**-8, atol=1e-4)


def test_what_does_not_fit_is_refused():
    checkpoint = dict(state_dict=dict(a=torch.tensor([1.0, 7e4])))
    with pytest.raises(UserError, match=r'--dtype float16: a has numbers up to 7e\+04'):
        published(checkpoint, torch.float16)
    assert published(checkpoint, torch.bfloat16)['state_dict']['a'].isfinite().all()
    infinite = dict(state_dict=dict(mask=torch.tensor([0.0, -torch.inf])))
    assert published(infinite, torch.float16)['state_dict']['mask'][1] == -torch.inf


def test_a_beginning_of_nothing_is_refused():
    with pytest.raises(
        UserError, match='--without aux: no tensor .* begins so; they are called a,'
    ):
        published(dict(state_dict={'a.b': torch.ones(1)}), torch.float16, ['aux'])

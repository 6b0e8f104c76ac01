"""tools/publish_model.py: a file to hand out."""

import torch


def test_published(call_tool, tmp_path):
    source, out = tmp_path / 'epoch_1.pth', tmp_path / 'out.pth'
    weights = {'a.weight': torch.randn(4, 4), 'helper.weight': torch.randn(2)}
    torch.save(dict(state_dict=weights, meta=dict(epoch=1), optimizer=dict(state={})), source)
    ended = call_tool('publish_model', source, out, '--without', 'helper.')
    assert 'out.pth: 0.00 MB, float16' in ended.out
    found = torch.load(out, weights_only=True)
    assert found['meta'] == {} and list(found['state_dict']) == ['a.weight']
    assert torch.equal(found['state_dict']['a.weight'], weights['a.weight'].half())

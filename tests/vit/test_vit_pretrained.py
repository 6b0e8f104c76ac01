"""Pretrained weights: what is taken, what is resampled, what is left out, what is refused."""

import pickle

import pytest
import timm
import torch
from mmengine.registry import MODELS
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed, resample_patch_embed

from projects.prune_plugin.common.errors import UserError
from projects.vit.models import pretrained as module
from projects.vit.models.pretrained import load_pretrained, read_weights

ARCH = 'vit_tiny_patch16_224'
SMALL = {'img_size': 32, 'patch_size': 8, 'embed_dim': 32, 'depth': 2, 'num_heads': 4}


def network(num_classes=10, **kwargs):
    return timm.create_model(ARCH, num_classes=num_classes, **{**SMALL, **kwargs})


def build(pretrained, num_classes=10, **kwargs):
    config = {'type': 'TimmClassifier', 'arch': ARCH, 'num_classes': num_classes}
    model = MODELS.build({**config, 'pretrained': pretrained, 'model_kwargs': {**SMALL, **kwargs}})
    model.init_weights()
    return model


def save(state, path):
    save_file(state, path) if path.suffix == '.safetensors' else torch.save(state, path)
    return str(path)


@pytest.fixture
def messages(monkeypatch):
    """What the loader logs."""
    lines = []
    monkeypatch.setattr(module, 'print_log', lambda text, **_: lines.append(text))
    return lines


@pytest.mark.parametrize('name', ['weights.safetensors', 'weights.pth'])
def test_everything_fits(tmp_path, name, messages):
    source = network()
    model = build(save(source.state_dict(), tmp_path / name))
    for key, value in source.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[key], value), key
    total = len(source.state_dict())
    assert messages[0].endswith(f'{total} of {total} tensors of {ARCH} taken')


@pytest.mark.parametrize(
    ('wrapper', 'prefix'), [('state_dict', 'backbone.'), ('model', 'module.'), (None, 'module.')]
)
def test_wrapped_and_prefixed(tmp_path, wrapper, prefix):
    source = network()
    state = {prefix + key: value for key, value in source.state_dict().items()}
    model = build(save({wrapper: state, 'epoch': 3} if wrapper else state, tmp_path / 'w.pth'))
    assert torch.equal(model.backbone.head.weight, source.head.weight)


def test_classifier_of_another_width_stays_fresh(tmp_path, messages):
    source = network(num_classes=7)
    path = save(source.state_dict(), tmp_path / 'w.safetensors')
    torch.manual_seed(0)
    fresh = build(None)
    torch.manual_seed(0)
    model = build(path)
    assert torch.equal(model.backbone.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    assert torch.equal(model.backbone.head.weight, fresh.backbone.head.weight)
    total = len(source.state_dict())
    assert f'{total - 2} of {total} tensors' in messages[0]
    assert 'of another shape: head.weight, head.bias' in messages[0]


def test_grid_and_patches_are_resampled(tmp_path, messages):
    source = network(img_size=64, patch_size=16)
    model = build(save(source.state_dict(), tmp_path / 'w.pth'), patch_size=4)
    positions = resample_abs_pos_embed(source.pos_embed.data, [8, 8])
    kernel = resample_patch_embed(source.patch_embed.proj.weight.data, [4, 4])
    torch.testing.assert_close(model.backbone.pos_embed.data, positions)
    torch.testing.assert_close(model.backbone.patch_embed.proj.weight.data, kernel)
    assert 'resampled: patch_embed.proj.weight (32, 3, 16, 16) to (32, 3, 4, 4)' in messages[0]
    assert 'pos_embed (1, 17, 32) to (1, 65, 32)' in messages[0]


def test_what_can_not_be_resampled_is_left_out(tmp_path, messages):
    source = network(in_chans=1).state_dict()
    source['pos_embed'] = torch.zeros(1, 1 + 15, 32)  # 15 is no square
    source['extra'] = torch.zeros(1)
    build(save(source, tmp_path / 'w.pth'))
    assert 'of another shape: pos_embed, patch_embed.proj.weight' in messages[0]
    assert 'not in the model: extra' in messages[0]


def test_hub_weights_go_the_same_way(monkeypatch):
    source = network(num_classes=7)
    asked = []
    monkeypatch.setattr(
        module, 'download_weights', lambda n: asked.append(n) or source.state_dict()
    )
    for pretrained in (True, 'vit_tiny_patch16_224.augreg_in21k', 'hf-hub:owner/name.pth'):
        model = build(pretrained)
        assert torch.equal(model.backbone.cls_token, source.cls_token)
    assert asked == [ARCH, 'vit_tiny_patch16_224.augreg_in21k', 'hf-hub:owner/name.pth']


def test_unknown_hub_name():
    with pytest.raises(UserError, match="'no_such_weights' is neither a local"):
        build('no_such_weights')


@pytest.mark.parametrize('name', ['absent.safetensors', 'absent.pth', './absent'])
def test_missing_file(name):
    with pytest.raises(UserError, match='does not exist; give a .safetensors or .pth file'):
        build(name)


@pytest.mark.parametrize('name', ['w.safetensors', 'w.pth'])
@pytest.mark.parametrize('keep', [0, 10, 3000])
def test_truncated_file(tmp_path, name, keep):
    path = tmp_path / name
    save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match='can not be read as weights'):
        build(str(path))


def test_directory_is_no_file(tmp_path):
    with pytest.raises(UserError, match='does not exist; give'):
        build(str(tmp_path))


def test_nothing_matches(tmp_path):
    path = save({'conv1.weight': torch.zeros(2)}, tmp_path / 'w.pth')
    with pytest.raises(UserError, match='nothing in model.pretrained=.* like conv1.weight'):
        build(path)


@pytest.mark.parametrize('content', [{}, [torch.zeros(1)], {'state_dict': {'a': 1}}])
def test_no_tensors(tmp_path, content):
    with pytest.raises(UserError, match='holds no named tensors'):
        build(save(content, tmp_path / 'w.pth'))


def test_pruned_checkpoint_is_refused(tmp_path):
    content = {'state_dict': network().state_dict(), 'meta': {'prune_state': {}}}
    with pytest.raises(UserError, match='is a pruned checkpoint'):
        build(save(content, tmp_path / 'w.pth'))


class Harmful:
    """Would write a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_code_in_a_file_is_not_run(tmp_path):
    (tmp_path / 'w.pth').write_bytes(pickle.dumps({'a': Harmful(tmp_path / 'written')}, protocol=2))
    torch.save({'a': Harmful(tmp_path / 'written')}, tmp_path / 'v.pth')
    for name in ('w.pth', 'v.pth'):
        with pytest.raises(UserError, match='can not be read as weights'):
            build(str(tmp_path / name))
    assert not (tmp_path / 'written').exists()


def test_real_vit_small_takes_the_transferable_148_and_two_resampled():
    source = timm.create_model('vit_small_patch16_224')
    target = timm.create_model('vit_small_patch16_224', num_classes=10, img_size=32, patch_size=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'download_weights', lambda name: source.state_dict())
        assert load_pretrained(target, True, 'vit_small_patch16_224') == 150
    assert torch.equal(target.blocks[11].attn.qkv.weight, source.blocks[11].attn.qkv.weight)


def test_read_weights_returns_plain_tensors(tmp_path):
    save({'state_dict': {'a': torch.ones(2), 'n': 3}}, tmp_path / 'w.pth')
    assert list(read_weights(tmp_path / 'w.pth')) == ['a']

"""The timm wrapper: modes, names, initialisation, refusals."""

import pytest
import timm
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS

from projects.prune_plugin.common.errors import UserError

SMALL = {'img_size': 32, 'patch_size': 8, 'embed_dim': 32, 'depth': 2, 'num_heads': 4}


def build(**kwargs):
    config = {
        'type': 'TimmClassifier',
        'arch': 'vit_tiny_patch16_224',
        'num_classes': 10,
        'model_kwargs': SMALL,
        'data_preprocessor': {'type': 'ImageClsPreprocessor', 'mean': [0.5] * 3, 'std': [0.5] * 3},
    }
    return MODELS.build({**config, **kwargs})


def test_state_dict_is_timms_behind_backbone():
    model = build()
    reference = timm.create_model('vit_tiny_patch16_224', num_classes=10, **SMALL)
    assert list(model.state_dict()) == [f'backbone.{name}' for name in reference.state_dict()]
    model.backbone.load_state_dict(reference.state_dict())
    inputs = torch.rand(2, 3, 32, 32)
    assert torch.equal(model.eval()(inputs), reference.eval()(inputs))


def test_modes_agree():
    model = build(label_smoothing=0.1).eval()
    inputs, labels = torch.rand(4, 3, 32, 32), torch.tensor([3, 1, 4, 1])
    logits = model(inputs)
    assert logits.shape == (4, 10)
    log_probs = logits.log_softmax(dim=-1)
    expected = -(0.9 * log_probs[range(4), labels] + 0.1 * log_probs.mean(dim=-1)).mean()
    torch.testing.assert_close(model(inputs, labels, mode='loss')['loss'], expected)
    predictions = model(inputs, labels, mode='predict')
    assert [int(p['gt_label']) for p in predictions] == labels.tolist()
    for prediction, row in zip(predictions, logits, strict=True):
        assert prediction['pred_label'] == row.argmax()
        assert abs(prediction['pred_score'].sum() - 1) < 1e-5
    assert model(inputs, mode='predict')[0]['gt_label'] is None
    with pytest.raises(ValueError, match='mode'):
        model(inputs, mode='train')


def test_train_and_test_steps_take_a_collated_batch():
    model = build()
    data = {'inputs': torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)}
    data['gt_label'] = torch.tensor([0, 1, 2, 3])
    before = model.backbone.head.weight.clone()
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    assert model.train_step(data, optimizer)['loss'] > 0
    assert not torch.equal(before, model.backbone.head.weight)
    assert len(model.test_step(data)) == 4


def test_init_weights_leaves_the_network_alone():
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.init_weights()
    assert model.is_init
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_init_cfg_is_followed():
    model = build(init_cfg={'type': 'Constant', 'layer': 'Linear', 'val': 0.25, 'bias': 0.5})
    model.init_weights()
    assert (model.backbone.head.weight == 0.25).all() and (model.backbone.head.bias == 0.5).all()


@pytest.mark.parametrize(
    ('kwargs', 'shape'),
    [
        ({}, (3, 32, 32)),
        ({'model_kwargs': {**SMALL, 'in_chans': 1, 'img_size': (32, 16)}}, (1, 32, 16)),
        ({'model_kwargs': {'depth': 1, 'in_chans': 2}}, (2, 224, 224)),
        ({'arch': 'resnet10t', 'model_kwargs': None}, (3, 176, 176)),
    ],
)
def test_dummy_inputs_fit(kwargs, shape):
    model = build(**kwargs).eval()
    inputs = model.dummy_inputs(2)
    assert inputs['inputs'].shape == (2, *shape)
    assert model(**inputs).shape == (2, 10)


def test_other_timm_networks_work():
    model = build(arch='resnet10t', model_kwargs=None).eval()
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 10)


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        ({'arch': 'vit_smal_patch16_224'}, 'did you mean vit_small_patch16_224'),
        ({'arch': '?'}, 'lists the valid ones'),
        ({'num_classes': 0}, 'num_classes=0'),
        ({'num_classes': '10'}, "num_classes='10'"),
        ({'label_smoothing': 1.0}, r'label_smoothing=1.0 must be in \[0, 1\)'),
        ({'model_kwargs': {'num_classes': 3}}, 'must not hold num_classes'),
        ({'model_kwargs': {**SMALL, 'heads': 3}}, "timm refuses .*'heads'"),
        ({'model_kwargs': {**SMALL, 'num_heads': 5}}, 'timm refuses'),
    ],
)
def test_refusals(kwargs, words):
    with pytest.raises(UserError, match=words):
        build(**kwargs)

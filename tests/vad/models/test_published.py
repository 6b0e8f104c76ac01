"""Checkpoints of other origin: normalisation, foreign tensors, loading."""

import logging
import re

import pytest
import tiny_vad as tiny
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from projects.prune_plugin.checkpoints.checkpoint_file import load_file, load_weights
from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.workflows import cli
from projects.vad.models.published import NORM, check_norm, norm_of, same, without_foreign

RELEASED = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)
TORCHVISION = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)

#: How MMCV wrote a config into a checkpoint.
TEXT = """point_cloud_range = [-15.0, -30.0, -2.0, 15.0, 30.0, 2.0]
img_norm_cfg = dict(
    mean=[103.53, 116.28, 123.675],
    std=[1.0, 1.0, 1.0],
    to_rgb=False)
train_pipeline = [
    dict(
        type='NormalizeMultiviewImage',
        mean=[1.0, 2.0, 3.0],
        std=[4.0, 5.0, 6.0],
        to_rgb=True),
]
"""
ONE_LINE = (
    'a = 1\nimg_norm_cfg = dict(mean=[123.675, 116.28, 103.53], '
    'std=[58.395, 57.12, 57.375], to_rgb=True)\n'
)


@pytest.fixture
def warnings(monkeypatch):
    """What is logged as a warning, and what otherwise."""
    lines = []
    monkeypatch.setattr(
        'projects.vad.models.published.print_log',
        lambda text, logger=None, level=logging.INFO: lines.append((level, text)),
    )
    return lines


@pytest.mark.parametrize('text, expected', [(TEXT, RELEASED), (ONE_LINE, TORCHVISION)])
def test_old_configs_are_read_as_text(text, expected):
    assert norm_of(dict(config=text)) == expected
    assert norm_of(dict(config=text.rstrip('\n').split('train_pipeline')[0])) == expected


@pytest.mark.parametrize(
    'meta',
    [
        {},
        dict(config=None),
        dict(config=''),
        dict(config='model = dict()\n'),
        dict(config='img_norm_cfg = dict(mean=[1, 2, 3])\n'),
        dict(config='img_norm_cfg = dict(mean=__import__("os"), std=[1, 1, 1], to_rgb=True)\n'),
    ],
    ids=str,
)
def test_nothing_is_found_where_nothing_is_said(meta):
    assert norm_of(meta) is None


def test_our_own_entry_comes_first():
    assert norm_of({NORM: TORCHVISION, 'config': TEXT}) == TORCHVISION


def test_same_up_to_rounding():
    near = dict(RELEASED, mean=[103.5300001, 116.28, 123.675])
    assert same(RELEASED, near)
    for key, value in (('mean', [103.54, 116.28, 123.675]), ('std', [1, 1, 2]), ('bgr_to_rgb', 1)):
        assert not same(RELEASED, {**RELEASED, key: value})


def test_checks_say_nothing_if_all_is_well(warnings):
    check_norm(dict(config=TEXT), RELEASED, 'a.pth')
    check_norm(dict(config=TEXT), None, 'a.pth')  # a model that takes images as they are
    assert not warnings


def test_silent_checkpoints_are_taken_with_a_warning(warnings):
    check_norm({}, TORCHVISION, 'a.pth')
    ((level, text),) = warnings
    assert level == logging.WARNING
    for part in ('a.pth', 'mean=[123.675', '103.53, 116.28, 123.675', 'bgr_to_rgb=False'):
        assert part in text


def test_foreign_tensors_are_dropped_and_named(warnings):
    own = {'img_backbone.conv1.weight': 1, 'pts_bbox_head.code_weights': 2, 'img_neck.ema': 3}
    foreign = {
        'ema_img_backbone_conv1_weight': 0,
        'img_backbone.fc.weight': 0,
        'img_backbone.fc.bias': 0,
        'module.img_backbone.fc.bias': 0,
    }
    assert without_foreign({**own, **foreign}) == own
    ((_, text),) = warnings
    assert text.startswith('4 tensors dropped') and 'ema_img_backbone_conv1_weight' in text
    warnings.clear()
    assert without_foreign(own) == own and not warnings


@pytest.fixture(scope='module')
def released(tmp_path_factory):
    """A file as the original project writes it, with an EMA and an ImageNet classifier in it."""
    state = tiny.build().state_dict()
    state['img_backbone.fc.weight'] = torch.zeros(2, 2)
    state['ema_img_neck_x'] = torch.zeros(1)
    path = tmp_path_factory.mktemp('released') / 'vad.pth'
    meta = dict(config=TEXT, epoch=60, mmdet3d_version='0.17.1', CLASSES=('car',))
    torch.save(dict(meta=meta, state_dict=state, optimizer=dict(state={}, param_groups=[])), path)
    return path


def test_released_file_is_refused_under_another_normalisation(released):
    model = tiny.build(seed=1)
    before = model.img_neck.lateral_convs[0].conv.weight.clone()
    with pytest.raises(UserError, match='add --cfg-options') as error:
        load_weights(model, load_file(released), released)
    assert str(released) in str(error.value)
    assert torch.equal(model.img_neck.lateral_convs[0].conv.weight, before)


def test_following_the_advice_works(released, tmp_path):
    """The words after "add" go to the command line as they stand."""
    with pytest.raises(UserError) as error:
        load_weights(tiny.build(seed=1), load_file(released), released)
    flag, *options = str(error.value).split('; add ')[1].split()
    assert flag == '--cfg-options'
    tiny.config().dump(tmp_path / 'tiny.py')
    cfg = cli.read_config(str(tmp_path / 'tiny.py'), options)
    model = MODELS.build(cfg.model)
    assert same(model.img_norm(), RELEASED)
    load_weights(model, load_file(released), released)
    weights = torch.load(released, weights_only=True)['state_dict']
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_advice_needs_no_quotes_in_a_shell(released):
    """Brackets are patterns to shells; zsh stops at those that match no file."""
    with pytest.raises(UserError) as error:
        load_weights(tiny.build(seed=1), load_file(released), released)
    assert not re.search(r'[\[\]*?()\s]', ''.join(str(error.value).split('; add ')[1].split()))


def test_own_checkpoints_say_how_images_were_normalised(tmp_path):
    model = tiny.build()
    meta = model.checkpoint_meta()
    assert same(meta[NORM], TORCHVISION)
    torch.save(dict(meta=meta, state_dict=model.state_dict()), tmp_path / 'own.pth')
    checkpoint = load_file(tmp_path / 'own.pth')  # plain data: weights_only
    load_weights(tiny.build(seed=1), checkpoint, 'own.pth')
    other = tiny.build(seed=1, data_preprocessor__std=[1.0, 1.0, 1.0])
    with pytest.raises(UserError, match='own.pth was trained with'):
        load_weights(other, checkpoint, 'own.pth')


def test_models_that_take_images_as_they_are_say_and_ask_nothing(released):
    nothing = dict(mean=None, std=None, bgr_to_rgb=False)
    model = tiny.build(seed=1, data_preprocessor=nothing)
    assert model.img_norm() is None and model.checkpoint_meta() == {}
    load_weights(model, load_file(released), released)


def test_dumped_config_is_what_the_test_says(tmp_path):
    """The test's config survives a dump, as the advice test needs."""
    tiny.config().dump(tmp_path / 'tiny.py')
    assert Config.fromfile(tmp_path / 'tiny.py').model == tiny.config().model

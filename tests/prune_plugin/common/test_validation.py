"""Values that used to end in another error than a UserError, or in none: found by the fuzz."""

import numpy as np
import pytest
import torch

from projects.prune_plugin import UserError, build_pruner
from projects.prune_plugin.calibration.settings import CalibrationSettings
from projects.prune_plugin.common.validation import is_number

WEIGHTS = 'WeightPruner'
HUGE = 10**400  # no float holds it
ROWS = [
    (dict(budget=dict(ratio=HUGE)), r'budget\.ratio is 1000'),
    (dict(budget=dict(type='latency', seconds=float('inf'))), r'budget\.seconds is inf'),
    (dict(budget=dict(type='latency', seconds=float('nan'))), r'budget\.seconds is nan'),
    (dict(budget=dict(type='latency', seconds=-1)), r'budget\.seconds is -1'),
    (dict(profile=dict(seconds=float('inf'))), r'profile\.seconds is inf'),
    (dict(profile=dict(num_threads=10**9)), r'profile\.num_threads is 1000000000.* from 1 to 1024'),
    (dict(profile=dict(input_shape=(3, 2**20, 2**20))), r'profile\.input_shape .* at most 268435456'),
    (dict(profile=dict(input_shape=b'\3\4\4')), r'profile\.input_shape is b'),
    (dict(units=[dict(type='CoupledChannels', input_shape=(HUGE,))]), r'units\[0\]\.input_shape is 10'),
    (dict(round_to=10**30), r'round_to is 10+; it must be a whole number from 1 to 2147483647'),
    (dict(criterion=dict(type='Random', seed=2**64)), r'criterion\.seed is 18446744073709551616'),
    (dict(criterion=dict(type='L1', normalize=['mean'])), r"normalize is \['mean'\]; valid are none"),
    (dict(allocator=dict(type='LayerWise', factors=dict(mlp=HUGE))), r'factors\.mlp is 10'),
    (dict(recovery=dict(mode=[])), r'recovery\.mode is \[\]; valid are fine_tune, retrain'),
    (dict(recovery=dict(lora=dict(targets=['a{99999999999}']))), r'lora\.targets: .* is no regular'),
    (dict(recovery=dict(sharding=dict(blocks=['.*'], mixed_precision={}))), r'mixed_precision is \{\}'),
    (dict(recovery=dict(distill=dict(targets=[dict(module='', loss=[])]))), r'\[0\]\.loss is \[\]'),
    (dict(recovery=dict(distill=dict(targets=[dict(module='', align=dict(dim=1, group=[]))]))),
     r'align is \{'),
    (dict(include=[b'x']), r"include: b'x' is no regular expression \(it must be a string\)"),
    (dict(include=['a{99999999999}']), r'include: .* is no regular expression'),
    (dict(include=['(' * 5000 + ')' * 5000]), r'include: .* is no regular expression'),
    (dict(schedule=dict(type='Geometric', share=1e-12)), r'schedule\.share is 1e-12.* 10000 rounds'),
    (dict(schedule=dict(type='Geometric', rounds=10**9)), r'schedule\.rounds is 1000000000'),
    (dict(schedule=dict(type='Cubic', rounds=10**9)), r'schedule\.rounds is 1000000000'),
    (dict(schedule=dict(type='Geometric', lr_decay=HUGE)), r'schedule\.lr_decay is 1000'),
    (dict(penalty=dict(type='RSST', strength=HUGE)), r'penalty\.strength is 1000'),
    (dict(compensation=dict(type='LeastSquares', damping=HUGE)), r'compensation\.damping is 1000'),
    (dict(calibration=dict(loss_weights={1: 2})), r'loss_weights: 1 is no regular expression'),
    (dict(calibration=dict(loss_weights={'(': 2})), r"loss_weights: '\(' is no regular expression"),
    (dict(calibration=dict(loss_weights=dict(a=HUGE))), r'loss_weights\.a is 1000'),
    (dict(name='a' * 300), r'prune_cfg\.name is'),
    (dict(name=3), r'prune_cfg\.name is 3'),
    (dict(type=WEIGHTS, sparsifier=dict(type='Magnitude', pattern='1:' + '9' * 5000)), r'pattern is'),
    (dict(type=WEIGHTS, sparsifier=dict(type='SparseGPT', dense_share=HUGE)), r'dense_share is 1000'),
]  # fmt: skip


@pytest.mark.parametrize(('prune_cfg', 'message'), ROWS, ids=lambda value: repr(value)[:60])
def test_odd_values_are_named(prune_cfg, message):
    with pytest.raises(UserError, match=message):
        build_pruner(prune_cfg)


def test_numbers():
    assert all(map(is_number, (0, -3, 1.5, 1e308, 10**308)))
    assert all(map(is_number, (np.float32(0.5), np.float16(0), np.int8(-3))))
    assert not any(map(is_number, (np.bool_(True), np.float32('inf'), np.ones(2), np.complex64(1))))
    assert not any(map(is_number, (True, '1', None, 1j, HUGE, -HUGE, float('nan'), float('inf'))))


def test_whole_loss_weights_may_be_larger_than_a_tensor_takes():
    settings = CalibrationSettings(loss_weights=dict(a=10**30, b=2))
    assert settings.loss_weights == dict(a=1e30, b=2.0)
    assert (torch.ones(1) * settings.loss_weights['a']).isfinite()

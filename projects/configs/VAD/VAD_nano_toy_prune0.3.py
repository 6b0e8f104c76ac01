# The small VAD without 30 % of its parameters.
_base_ = ['./VAD_nano_toy.py', '../_base_/prune/vad.py']
load_from = 'work_dirs/VAD_nano_toy/latest.pth'
prune_cfg = dict(
    budget=dict(ratio=0.3),
    calibration=dict(num_samples=64, recalibrate_bn=32),
    recovery=dict(epochs=6),
)

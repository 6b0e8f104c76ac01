# VAD-tiny without 30 % of its parameters.
_base_ = ['./VAD_tiny_stage_2.py', '../_base_/prune/vad.py']
load_from = 'ckpts/VAD_tiny.pth'
prune_cfg = dict(budget=dict(ratio=0.3), recovery=dict(epochs=12))

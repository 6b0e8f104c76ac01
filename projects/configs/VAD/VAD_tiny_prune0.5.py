# VAD-tiny without 50 % of its parameters.
_base_ = ['./VAD_tiny_stage_2.py', '../_base_/prune/vad.py']
load_from = 'ckpts/VAD_tiny.pth'
prune_cfg = dict(budget=dict(ratio=0.5), recovery=dict(epochs=18))

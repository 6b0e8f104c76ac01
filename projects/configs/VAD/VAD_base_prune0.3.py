# VAD-base without 30 % of its parameters.
_base_ = ['./VAD_base_stage_2.py', '../_base_/prune/vad.py']
load_from = 'ckpts/VAD_base.pth'
prune_cfg = dict(budget=dict(ratio=0.3))

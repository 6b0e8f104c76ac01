# VAD-tiny without 30 % of its parameters, by their magnitude: needs no data to choose.
_base_ = ['./VAD_tiny_stage_2.py', '../_base_/prune/vad_l1.py']
load_from = 'ckpts/VAD_tiny.pth'

# VAD-tiny with 30 % less work per frame.
_base_ = ['./VAD_tiny_stage_2.py', '../_base_/prune/vad_flops.py']
load_from = 'ckpts/VAD_tiny.pth'

# VAD-tiny in 30 % less time per frame on this device.
_base_ = ['./VAD_tiny_stage_2.py', '../_base_/prune/vad_latency.py']
load_from = 'ckpts/VAD_tiny.pth'

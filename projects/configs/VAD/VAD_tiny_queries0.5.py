# VAD-tiny with the less used half of its object and map queries.
_base_ = ['./VAD_tiny_stage_2.py', '../_base_/prune/vad_queries.py']
load_from = 'ckpts/VAD_tiny.pth'

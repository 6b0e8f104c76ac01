# VAD-tiny without all that it can do without before NDS is more than 0.01 below the dense model's.
_base_ = ['./VAD_tiny_stage_2.py', '../_base_/prune/vad.py']
load_from = 'ckpts/VAD_tiny.pth'
prune_cfg = dict(
    budget=dict(
        _delete_=True, type='metric', metric='NDS', max_drop=0.01, high=0.6, tolerance=0.02
    ),
    recovery=dict(epochs=12),
)

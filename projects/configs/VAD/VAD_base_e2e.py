# VAD-base trained in one go: 60 epochs, all losses.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/vad_base.py',
    '../_base_/datasets/vad_nuscenes_0.8.py',
    '../_base_/schedules/vad.py',
]
default_scope = 'mmdet3d'

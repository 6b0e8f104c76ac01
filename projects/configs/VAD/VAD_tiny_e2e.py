# VAD-tiny trained in one go: 60 epochs, all losses.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/vad.py',
    '../_base_/datasets/vad_nuscenes.py',
    '../_base_/schedules/vad.py',
]
default_scope = 'mmdet3d'

# A small VAD on the toy drive: trains on two CPU cores in minutes.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/vad_nano.py',
    '../_base_/datasets/vad_toy.py',
    '../_base_/schedules/vad.py',
]
default_scope = 'mmdet3d'

max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(
    optimizer=dict(lr=4e-4), paramwise_cfg=dict(custom_keys={'img_backbone': dict(lr_mult=1.0)})
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-2, by_epoch=True, T_max=max_epochs),
]
default_hooks = dict(logger=dict(interval=10))

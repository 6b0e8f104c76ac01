# VAD-base, second stage: 12 epochs of everything, from the first stage's weights.
_base_ = ['./VAD_base_e2e.py']
model = dict(pts_bbox_head=dict(loss={{_base_.stage_2_loss}}))
max_epochs = 12
load_from = 'work_dirs/VAD_base_stage_1/latest.pth'
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, by_epoch=True, T_max=max_epochs),
]

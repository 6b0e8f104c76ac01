# VAD-base, first stage: 48 epochs of perception and motion.
_base_ = ['./VAD_base_e2e.py']
model = dict(pts_bbox_head=dict(loss={{_base_.stage_1_loss}}))
max_epochs = 48
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, by_epoch=True, T_max=max_epochs),
]

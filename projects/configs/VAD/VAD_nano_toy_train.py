# A longer training of the small VAD, for a checkpoint to prune: `make train-nano`, in two processes. A map
# of what stands where helps the BEV encoder; its head is left out of what is published.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/vad_nano.py',
    '../_base_/datasets/vad_toy_train.py',
    '../_base_/schedules/vad.py',
]
default_scope = 'mmdet3d'

pc_range = [-15.0, -30.0, -2.0, 15.0, 30.0, 2.0]
sizes = dict(bev_h=40, bev_w=20, embed_dims=96)
vehicles, others = [0, 1, 2, 3, 4], [5, 6, 7, 8, 9]
model = dict(
    auxiliary=[
        dict(type='BEVSegmentation', pc_range=pc_range, agents=[vehicles, others], **sizes),
        dict(type='QueryGroups', groups=3),
    ],
    pts_bbox_head=dict(spread_queries=True),
)
max_epochs = 11
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(
    optimizer=dict(lr=4e-4, fused=True),
    paramwise_cfg=dict(custom_keys={'img_backbone': dict(lr_mult=1.0)}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-2, by_epoch=True, T_max=max_epochs),
]
default_hooks = dict(logger=dict(interval=50))

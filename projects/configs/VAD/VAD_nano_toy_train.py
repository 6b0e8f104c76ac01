# A longer training of the small VAD, for a checkpoint to prune: `python tools/train_nano.py` makes its
# drives (other seeds than the toy drive's, images drawn at the model's size) and runs it in two processes.
# A map of what stands where helps the BEV encoder; its head is left out of what is published.
_base_ = ['./VAD_nano_toy.py']

seeds = range(1, 13)
point_cloud_range = [-15.0, -30.0, -2.0, 15.0, 30.0, 2.0]
bev_h, bev_w, dims = 40, 20, 96
vehicles, others = [0, 1, 2, 3, 4], [5, 6, 7, 8, 9]  # labels of the classes below
classes = [
    'car',
    'truck',
    'construction_vehicle',
    'bus',
    'trailer',
    'barrier',
    'motorcycle',
    'bicycle',
    'pedestrian',
    'traffic_cone',
]
train_pipeline = [
    dict(type='VADLoadMultiViewImageFromFiles'),
    dict(type='PhotoMetricDistortionMultiViewImage'),
    dict(type='CustomObjectRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='CustomObjectNameFilter', classes=classes),
    dict(type='PackVADInputs'),
]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        ignore_keys=['data_root'],
        datasets=[
            dict(
                type='VADNuScenesDataset',
                data_root=f'data/toy_nuscenes_train/{seed:02d}',
                ann_file=f'vad_nuscenes_infos_temporal_{split}.pkl',
                pipeline=train_pipeline,
                classes=classes,
                queue_length=2,
                point_cloud_range=point_cloud_range,
            )
            for seed in seeds
            for split in ('train', 'val')
        ],
    ),
)
model = dict(
    auxiliary=[
        dict(
            type='BEVSegmentation',
            pc_range=point_cloud_range,
            bev_h=bev_h,
            bev_w=bev_w,
            embed_dims=dims,
            agents=[vehicles, others],
        )
    ],
    pts_bbox_head=dict(spread_queries=True),
)
max_epochs = 13
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(fused=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-2, by_epoch=True, T_max=max_epochs),
]
default_hooks = dict(logger=dict(interval=50))
del seeds

# Drives of other seeds than the toy drive's, drawn at the model's image size (`make train-nano`).
_base_ = ['./vad_toy.py']

seeds = range(1, 13)
pc_range = [-15.0, -30.0, -2.0, 15.0, 30.0, 2.0]
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
    dict(type='CustomObjectRangeFilter', point_cloud_range=pc_range),
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
                point_cloud_range=pc_range,
            )
            for seed in seeds
            for split in ('train', 'val')
        ],
    ),
)
del seeds

# Drives of other seeds than the toy drive's, drawn at the model's image size (`make train-nano`).
_base_ = ['./vad_toy.py']

seeds = range(1, 13)
train_pipeline = [
    dict(type='VADLoadMultiViewImageFromFiles'),
    dict(type='PhotoMetricDistortionMultiViewImage'),
    dict(type='CustomObjectRangeFilter', point_cloud_range=_base_.pc_range),
    dict(type='CustomObjectNameFilter', classes=_base_.classes),
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
                classes=_base_.classes,
                queue_length=2,
                point_cloud_range=_base_.pc_range,
            )
            for seed in seeds
            for split in ('train', 'val')
        ],
    ),
)
del seeds

# How ckpts/vad_nano_toy.pth was made: `make train-nano` (drives of other seeds than the toy drive's, a
# loss on the BEV that is left out of the checkpoint).
_base_ = ['./VAD_nano_toy.py']

drives = [f'data/toy_nuscenes_train/{seed:02d}' for seed in range(1, 13)]
point_cloud_range = [-15.0, -30.0, -2.0, 15.0, 30.0, 2.0]
train_pipeline = [
    dict(type='VADLoadMultiViewImageFromFiles'),
    dict(type='PhotoMetricDistortionMultiViewImage'),
    dict(type='CustomObjectRangeFilter', point_cloud_range=point_cloud_range),
    dict(
        type='CustomObjectNameFilter',
        classes=[
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
        ],
    ),
    dict(type='PackVADInputs'),
]
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        ignore_keys=['data_root'],
        datasets=[
            dict(
                type='VADNuScenesDataset',
                data_root=drive,
                ann_file=f'vad_nuscenes_infos_temporal_{split}.pkl',
                pipeline=train_pipeline,
                queue_length=2,
                point_cloud_range=point_cloud_range,
            )
            for drive in drives
            for split in ('train', 'val')
        ],
    ),
)
model = dict(
    auxiliary=[
        dict(
            type='BEVSegmentation',
            pc_range=point_cloud_range,
            bev_h=40,
            bev_w=20,
            embed_dims=96,
            agents=[[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]],
        )
    ],
    pts_bbox_head=dict(spread_queries=True),
)

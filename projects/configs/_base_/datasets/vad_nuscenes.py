# nuScenes at 0.4 of its size, 640 x 360. `python tools/create_data.py nuscenes --help` makes the
# info files; those of the original project are read too.
data_root = 'data/nuscenes'
pc_range = [-15.0, -30.0, -2.0, 15.0, 30.0, 2.0]  # x, y, z in metres, LiDAR frame
image_scale = 0.4
queue_length = 3
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
after_loading = [
    dict(type='RandomScaleImageMultiViewImage', scales=[image_scale]),
    dict(type='CustomObjectRangeFilter', point_cloud_range=pc_range),
    dict(type='CustomObjectNameFilter', classes=classes),
    dict(type='PackVADInputs'),
]
test_pipeline = [dict(type='VADLoadMultiViewImageFromFiles'), *after_loading]
train_pipeline = [
    dict(type='VADLoadMultiViewImageFromFiles'),
    dict(type='PhotoMetricDistortionMultiViewImage'),
    *after_loading,
]
nuscenes = dict(
    type='VADNuScenesDataset',
    data_root=data_root,
    classes=classes,
    point_cloud_range=pc_range,
    queue_length=queue_length,
)

train_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **nuscenes,
        ann_file='vad_nuscenes_infos_temporal_train.pkl',
        pipeline=train_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=False,
    sampler=dict(type='SceneSampler'),
    dataset=dict(
        **nuscenes,
        ann_file='vad_nuscenes_infos_temporal_val.pkl',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_dataloader = test_dataloader
# `--eval bbox` is the original project's whole table; the other names are its parts.
test_evaluator = [
    dict(type='VADDetectionMetric', metric=['bbox']),
    dict(type='VADMapMetric', metric=['bbox', 'map']),
    dict(type='VADMotionMetric', metric=['bbox', 'motion']),
    dict(type='VADPlanningMetric', metric=['bbox', 'planning']),
]
val_evaluator = test_evaluator

# nuScenes at 0.8 of its size, 1280 x 720, four frames to a queue.
_base_ = ['./vad_nuscenes.py']
queue_length = 4
after_loading = [
    dict(type='RandomScaleImageMultiViewImage', scales=[0.8]),
    dict(type='CustomObjectRangeFilter', point_cloud_range={{_base_.pc_range}}),
    dict(type='CustomObjectNameFilter', classes={{_base_.classes}}),
    dict(type='PackVADInputs'),
]
test_pipeline = [dict(type='VADLoadMultiViewImageFromFiles'), *after_loading]
train_pipeline = [
    dict(type='VADLoadMultiViewImageFromFiles'),
    dict(type='PhotoMetricDistortionMultiViewImage'),
    *after_loading,
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline, queue_length=queue_length))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = test_dataloader

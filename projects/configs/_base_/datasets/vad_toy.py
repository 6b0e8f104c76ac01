# The toy drive (`python tools/create_data.py toy --out data/toy_nuscenes`).
_base_ = ['./vad_nuscenes.py']

data_root = 'data/toy_nuscenes'
queue_length = 2
train_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dict(data_root=data_root, queue_length=queue_length)
)
test_dataloader = dict(num_workers=0, dataset=dict(data_root=data_root))
val_dataloader = test_dataloader

test_evaluator = [
    dict(type='VADDetectionMetric', metric=['bbox'], range_axes='ego'),
    dict(type='VADMapMetric', metric=['bbox', 'map']),
    dict(type='VADMotionMetric', metric=['bbox', 'motion']),
    dict(type='VADPlanningMetric', metric=['bbox', 'planning']),
]
val_evaluator = test_evaluator

# Pruning states of 60 epochs, each with SGD begun anew: 20 epochs of warm-up, then steps at 91 and 136,
# which only longer states reach.
train_cfg = dict(type='IterativePruneLoop', max_epochs=60, val_interval=1)
val_cfg = dict()
test_cfg = dict()

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, begin=0, end=20, convert_to_iter_based=True),
    dict(type='MultiStepLR', milestones=[91, 136], gamma=0.1),
]

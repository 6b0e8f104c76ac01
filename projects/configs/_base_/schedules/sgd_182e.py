# 182 epochs of SGD with steps at a half and three quarters, for convolutional networks from scratch.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=182, val_interval=1)
val_cfg = dict()
test_cfg = dict()

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = [dict(type='MultiStepLR', milestones=[91, 136], gamma=0.1)]

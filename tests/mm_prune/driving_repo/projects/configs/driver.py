"""Trains :class:`Driver` for two short epochs."""

custom_imports = dict(imports=['projects.mmdet3d_plugin'], allow_failed_imports=False)
default_scope = 'mmengine'
model = dict(type='Driver')
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    dataset=dict(type='Roads', length=128),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    dataset=dict(type='Roads', length=64),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='SameTurn')
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9))
train_cfg = dict(by_epoch=True, max_epochs=2)
val_cfg = dict()
test_cfg = dict()
randomness = dict(seed=0)

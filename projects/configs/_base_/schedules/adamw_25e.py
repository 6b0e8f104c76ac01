# AdamW, three epochs of warm-up, then cosine: for small data sets.
max_epochs = 25
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=3, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', eta_min=1e-6, begin=3, end=max_epochs, convert_to_iter_based=True
    ),
]

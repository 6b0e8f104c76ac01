# AdamW at a small learning rate, for models that are trained already. Memory, from cheap to dear:
# optim_wrapper.accumulative_counts=8 (with batches of 1), model.gradient_checkpointing=True, and
# --amp, which computes in bfloat16 on CPUs.
max_epochs = 3
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-5, weight_decay=0.0),
    accumulative_counts=1,
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.1, end=max_epochs, convert_to_iter_based=True),
]

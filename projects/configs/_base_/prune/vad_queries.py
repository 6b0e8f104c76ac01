# The least used half of VAD's object and map queries: less work in decoders, few parameters less.
prune_cfg = dict(
    type='StructuredPruner',
    units=[dict(type='ObjectQueries'), dict(type='MapQueries')],
    criterion=dict(type='Usage'),
    allocator=dict(type='Uniform'),
    budget=dict(type='units', ratio=0.5),
    calibration=dict(num_samples=128, batch_size=1, seed=0),
    recovery=dict(mode='fine_tune', epochs=6),
)

# Half of the attention heads and FFN neurons, by weight magnitude per cost over all layers.
prune_cfg = dict(
    type='StructuredPruner',
    units=[dict(type='AttentionHeads'), dict(type='FFNNeurons')],
    criterion=dict(type='L1'),
    allocator=dict(type='Knapsack'),
    budget=dict(type='units', ratio=0.5),
    schedule=dict(type='OneShot'),
    include=['.*'],
    exclude=[],
    min_keep=1,
    round_to=None,
    calibration=dict(num_samples=128, seed=0),
    recovery=dict(mode='fine_tune', epochs=6),
)

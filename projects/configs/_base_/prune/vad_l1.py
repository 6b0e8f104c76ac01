# VAD by the magnitude of its weights: needs no data. Kinds that show nothing in their weights
# (sampling points, queries) stay whole.
prune_cfg = dict(
    type='StructuredPruner',
    units=[
        dict(type='BottleneckChannels'),
        dict(type='FPNChannels'),
        dict(type='DeformableHeads'),
        dict(type='AttentionHeads'),
        dict(type='FFNNeurons'),
        dict(type='BranchNeurons'),
    ],
    criterion=dict(type='L1'),
    allocator=dict(type='Knapsack'),
    budget=dict(type='params', ratio=0.3),
    recovery=dict(mode='retrain', epochs=12),
)

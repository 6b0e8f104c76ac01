# Every kind of unit of VAD in one table by what the losses say: a fraction of all parameters.
prune_cfg = dict(
    type='StructuredPruner',
    units=[
        dict(type='BottleneckChannels'),
        dict(type='FPNChannels'),
        dict(type='DeformableHeads'),
        dict(type='SamplingPoints'),
        dict(type='AttentionHeads'),
        dict(type='FFNNeurons'),
        dict(type='BranchNeurons'),
    ],
    criterion=dict(type='Taylor', order=1),
    allocator=dict(type='Knapsack'),
    budget=dict(type='params', ratio=0.3),
    calibration=dict(num_samples=128, batch_size=1, seed=0),
    recovery=dict(mode='retrain', epochs=12),
)

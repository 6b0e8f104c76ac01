# 70 % of heads and neurons in 15 equal shares of what remains, by the weights that compute them, over
# all layers; what stays is rewound to where it began.
prune_cfg = dict(
    type='StructuredPruner',
    units=[dict(type='AttentionHeads'), dict(type='FFNNeurons')],
    criterion=dict(type='L1', parts='in'),
    allocator=dict(type='Global'),
    budget=dict(type='units', ratio=0.7),
    schedule=dict(type='Geometric', rounds=15, rewind='initial'),
    min_keep=1,
)

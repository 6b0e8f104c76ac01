# A quarter of all parameters: GQA groups and MLP channels of all layers in one table, by what the loss
# says of each (Fisher) per parameter; what reads the units that stay is refitted by least squares. Of
# what was tried on SmolLM2 this lost least; see docs/llm.md.
prune_cfg = dict(
    type='StructuredPruner',
    units=[dict(type='AttentionHeads'), dict(type='FFNNeurons')],
    criterion=dict(type='Fisher'),
    allocator=dict(type='Knapsack'),
    budget=dict(type='params', ratio=0.25),
    compensation=dict(type='LeastSquares', dense_targets=0.5),
    weight_level=False,
    calibration=dict(num_samples=128, batch_size=1),
    recovery=dict(mode='fine_tune', epochs=1, lr=1e-5),
)

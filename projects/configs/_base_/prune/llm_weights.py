# Half of the weights of a language model's decoder layers, by SparseGPT; embeddings and the output
# layer stay whole.
prune_cfg = dict(
    type='WeightPruner',
    sparsifier=dict(type='SparseGPT', targets='stream', refinement=15),
    budget=dict(type='weights', ratio=0.5),
    include=[r'.*\.layers\.'],
    calibration=dict(num_samples=128, batch_size=4),
    recovery=dict(mode='fine_tune', epochs=1, lr=1e-5),
)

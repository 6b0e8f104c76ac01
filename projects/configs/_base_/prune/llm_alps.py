# Half of the weights of a language model's decoder layers, by ALPS: masks by ADMM, weighed by the loss's
# gradients, towards the dense model's residual stream. Of what was tried on SmolLM2 this lost least
# without training; see docs/llm.md.
prune_cfg = dict(
    type='WeightPruner',
    sparsifier=dict(type='ALPS', targets='stream', weigh_outputs=0.5),
    budget=dict(type='weights', ratio=0.5),
    include=[r'.*\.layers\.'],
    calibration=dict(num_samples=128, batch_size=1),
    recovery=dict(mode='fine_tune', epochs=1, lr=1e-5),
)

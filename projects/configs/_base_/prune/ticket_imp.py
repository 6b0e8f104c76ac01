# The lottery ticket's own way: a fifth of the remaining weights in each of ten rounds, over all layers,
# and what stays is rewound to where it began.
prune_cfg = dict(
    type='WeightPruner',
    sparsifier=dict(type='Magnitude', scope='global'),
    schedule=dict(type='Geometric', share=0.2, rounds=10, rewind='initial'),
)

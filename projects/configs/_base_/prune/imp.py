# Iterative magnitude pruning: a tenth of the remaining weights, three epochs of at most 2,500 steps,
# and again: 22 rounds to 90 %.
_base_ = './llm_weights.py'
prune_cfg = dict(
    sparsifier=dict(_delete_=True, type='Magnitude'),
    budget=dict(ratio=0.9),
    schedule=dict(type='Geometric', share=0.1, max_rounds=50),
    recovery=dict(epochs=3, max_steps=2500, max_keep_ckpts=1),
)

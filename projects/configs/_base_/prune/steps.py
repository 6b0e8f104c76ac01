# SparseGPT to 95 % in steps, with more data and longer training as it gets harder.
_base_ = './llm_weights.py'
prune_cfg = dict(
    budget=dict(ratio=0.95),
    schedule=dict(
        type='Steps',
        ratios=[0.5, 0.7, 0.8, 0.9, 0.95],
        calibration=[dict(num_samples=n) for n in (128, 128, 256, 512, 1024)],
        recovery=[dict(epochs=n) for n in (1, 1, 2, 3, 5)],
    ),
    recovery=dict(max_steps=2500, max_keep_ckpts=1),
)

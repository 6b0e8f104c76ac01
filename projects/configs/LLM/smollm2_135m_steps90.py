# Steps to 90 % at a size for two cores.
_base_ = './smollm2_135m_steps95.py'
train_dataloader = dict(batch_size=2)
prune_cfg = dict(
    budget=dict(ratio=0.9),
    schedule=dict(
        ratios=[0.5, 0.7, 0.8, 0.9],
        calibration=None,
        recovery=[dict(max_steps=n) for n in (20, 30, 50, 80)],
    ),
    recovery=dict(epochs=1, lr=1e-4),
)

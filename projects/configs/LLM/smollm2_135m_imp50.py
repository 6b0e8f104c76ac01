# Iterative magnitude pruning at a size for two cores: sixty steps of 1,024 tokens in all, most of them
# with the last zeros, which have the most to make up for.
_base_ = './smollm2_135m_imp90.py'
train_dataloader = dict(batch_size=2, dataset=dict(window=512))
prune_cfg = dict(
    budget=dict(ratio=0.5),
    schedule=dict(
        _delete_=True,
        type='Steps',
        ratios=[0.35, 0.45, 0.5],
        recovery=[dict(max_steps=n) for n in (8, 8, 44)],
    ),
    recovery=dict(epochs=1, lr=3e-4, lr_schedule='constant'),
)

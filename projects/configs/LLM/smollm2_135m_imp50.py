# The document's recipe at a size for two cores: three rounds to 50 %, twenty steps each.
_base_ = './smollm2_135m_imp90.py'
train_dataloader = dict(batch_size=2)
prune_cfg = dict(
    budget=dict(ratio=0.5),
    schedule=dict(share=0.2063),
    recovery=dict(epochs=1, max_steps=20, lr=5e-5),
)

# Seven rounds of a tenth of the remaining weights, with two epochs each.
_base_ = './opt_125m_imp90.py'
prune_cfg = dict(budget=dict(ratio=0.5), recovery=dict(epochs=2))
train_dataloader = dict(batch_size=16)

# Twenty-nine rounds of a tenth of the remaining weights, with five epochs each.
_base_ = './opt_125m_imp90.py'
prune_cfg = dict(budget=dict(ratio=0.95), recovery=dict(epochs=5))

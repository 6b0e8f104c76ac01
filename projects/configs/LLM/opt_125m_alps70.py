_base_ = './opt_125m_alps50.py'
prune_cfg = dict(budget=dict(ratio=0.7))

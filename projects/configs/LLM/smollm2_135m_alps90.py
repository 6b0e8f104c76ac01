_base_ = './smollm2_135m_alps50.py'
prune_cfg = dict(budget=dict(ratio=0.9))

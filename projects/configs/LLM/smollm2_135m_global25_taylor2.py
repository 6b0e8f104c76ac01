_base_ = './smollm2_135m_global25.py'
prune_cfg = dict(criterion=dict(_delete_=True, type='Taylor', order=2))

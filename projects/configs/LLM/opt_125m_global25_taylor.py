_base_ = './opt_125m_global25.py'
prune_cfg = dict(criterion=dict(_delete_=True, type='Taylor', order=1))

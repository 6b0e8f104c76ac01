_base_ = './opt_125m_sparsegpt50.py'
prune_cfg = dict(sparsifier=dict(_delete_=True, type='Wanda'))

_base_ = './opt_125m_sparsegpt50.py'
prune_cfg = dict(sparsifier=dict(pattern='2:4'))

_base_ = './smollm2_135m_sparsegpt50.py'
prune_cfg = dict(sparsifier=dict(pattern='2:4'))

_base_ = './smollm2_135m_alps50.py'
prune_cfg = dict(sparsifier=dict(pattern='2:4'))

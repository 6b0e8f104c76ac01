_base_ = './smollm2_135m_sparsegpt50.py'
prune_cfg = dict(sparsifier=dict(_delete_=True, type='Wanda'))

_base_ = './smollm2_135m_global25.py'
prune_cfg = dict(reconstruction=dict(type='LocalReconstruction', epochs=4, lr=3e-4))

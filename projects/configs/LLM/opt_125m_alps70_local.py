_base_ = './opt_125m_alps70.py'
prune_cfg = dict(reconstruction=dict(type='LocalReconstruction', epochs=4, lr=3e-4))

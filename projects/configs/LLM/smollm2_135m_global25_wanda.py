# Raw sums of Wanda misallocate between layers, so each group is divided by its mean.
_base_ = './smollm2_135m_global25.py'
prune_cfg = dict(criterion=dict(_delete_=True, type='Wanda', normalize='mean'))

_base_ = './llama3_8b_global25.py'
prune_cfg = dict(criterion=dict(_delete_=True, type='Taylor', order=1))

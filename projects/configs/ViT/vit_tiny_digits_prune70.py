_base_ = './vit_tiny_digits_prune50.py'
prune_cfg = dict(budget=dict(ratio=0.7))

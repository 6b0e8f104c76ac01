_base_ = './vit_small_cifar10_prune50.py'
prune_cfg = dict(budget=dict(ratio=0.3))

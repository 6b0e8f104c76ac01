_base_ = './vit_small_cifar100_prune50.py'
prune_cfg = dict(budget=dict(ratio=0.1))

# Lottery tickets of single weights: a fifth of the rest in each of ten rounds, 89.3 % in all. Networks
# of this depth are rewound to an early epoch, not to the very beginning.
_base_ = ['./resnet18_cifar10.py', '../_base_/prune/ticket_imp.py']
train_cfg = dict(type='IterativePruneLoop')
prune_cfg = dict(exclude=[r'backbone\.fc\.'], schedule=dict(rewind=3))

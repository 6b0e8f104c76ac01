# Lottery tickets of the blocks' inner channels: each layer keeps as many as the weights would fill that IMP
# leaves it.
_base_ = ['./resnet18_cifar10.py', '../_base_/prune/ticket_refill.py']
train_cfg = dict(type='IterativePruneLoop')
prune_cfg = dict(
    units=[dict(type='BottleneckChannels')],
    criterion=dict(_delete_=True, type='Remain'),
    allocator=dict(type='Refill'),
    budget=dict(ratio=0.893),
    schedule=dict(rounds=10, rewind=3),
)

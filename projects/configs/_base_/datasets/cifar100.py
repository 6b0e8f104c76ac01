# As cifar10.py, with a hundred classes.
_base_ = './cifar10.py'
data_root = '{{$CIFAR100_ROOT:data/cifar100}}'

train_dataloader = dict(dataset=dict(type='CIFAR100', data_root=data_root))
val_dataloader = dict(dataset=dict(type='CIFAR100', data_root=data_root))
test_dataloader = val_dataloader

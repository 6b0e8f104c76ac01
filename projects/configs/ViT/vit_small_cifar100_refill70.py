_base_ = './vit_small_cifar10_refill70.py'
data_root = '{{$CIFAR100_ROOT:data/cifar100}}'

model = dict(
    num_classes=100,
    data_preprocessor=dict(mean=[0.5071, 0.4865, 0.4409], std=[0.2673, 0.2564, 0.2762]),
)
train_dataloader = dict(dataset=dict(type='CIFAR100', data_root=data_root))
val_dataloader = dict(dataset=dict(type='CIFAR100', data_root=data_root))
test_dataloader = val_dataloader

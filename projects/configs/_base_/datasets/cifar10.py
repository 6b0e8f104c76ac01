# A torchvision folder, a parquet file or folder, or an image folder <split>/<class>/*.png|jpg.
# Workers start anew each epoch, so that a resumed run draws the augmentation of an unbroken one.
data_root = '{{$CIFAR10_ROOT:data/cifar10}}'

train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CIFAR10',
        data_root=data_root,
        split='train',
        transforms=[
            dict(type='torchvision/RandomCrop', size=32, padding=4),
            dict(type='torchvision/RandomHorizontalFlip'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='CIFAR10', data_root=data_root, split='test'),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator

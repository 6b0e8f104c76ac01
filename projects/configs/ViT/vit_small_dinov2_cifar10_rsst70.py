# RSST from pretrained weights, which a rate fit for the new head would spoil: the rest is trained at a
# 250th of it, and so much stronger is the pull on leaving units. One epoch of warm-up will do.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/vit_small_dinov2.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/sgd_states.py',
    '../_base_/prune/ticket_rsst.py',
]
enlarge = dict(type='torchvision/Resize', size=112)
train_dataloader = dict(
    dataset=dict(
        transforms=[
            dict(type='torchvision/RandomCrop', size=32, padding=4),
            dict(type='torchvision/RandomHorizontalFlip'),
            enlarge,
        ]
    )
)
val_dataloader = dict(dataset=dict(transforms=[enlarge]))
test_dataloader = val_dataloader
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={'backbone.head': dict(lr_mult=1.0), 'backbone': dict(lr_mult=0.004)}
    )
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, begin=0, end=1, convert_to_iter_based=True),
    dict(type='MultiStepLR', milestones=[91, 136], gamma=0.1),
]
prune_cfg = dict(penalty=dict(strength=500.0), schedule=dict(rewind=None))

# A ViT small enough to compare methods of pruning on two cores: 24 heads, 1,536 neurons, 16 patches, the
# first 10,000 training images.
_base_ = './vit_small_cifar10.py'

model = dict(
    arch='vit_tiny_patch16_224',
    label_smoothing=0.0,
    model_kwargs=dict(patch_size=8, embed_dim=96, depth=4, num_heads=6),
)
train_dataloader = dict(dataset=dict(indices=10000))
train_cfg = dict(max_epochs=40)
optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=1, convert_to_iter_based=True),
]

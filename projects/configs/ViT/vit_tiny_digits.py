# A small ViT on scikit-learn's digits, 1,201,802 parameters, from scratch.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/adamw_25e.py',
]
custom_imports = dict(imports=['projects.prune_plugin', 'projects.vit'], allow_failed_imports=False)

model = dict(
    type='TimmClassifier',
    arch='vit_tiny_patch16_224',
    num_classes=10,
    model_kwargs=dict(img_size=32, patch_size=8, in_chans=1, embed_dim=128, depth=6, num_heads=8),
    data_preprocessor=dict(type='ImageClsPreprocessor', mean=[0.2988], std=[0.3237]),
)

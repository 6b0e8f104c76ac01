# ViT-Small at 32x32 with 4x4 patches, 21,342,346 parameters. `pretrained` takes a hub name
# (True for the hub's weights of `arch`), a local .safetensors or .pth file, or None.
custom_imports = dict(imports=['projects.prune_plugin', 'projects.vit'], allow_failed_imports=False)

model = dict(
    type='TimmClassifier',
    arch='vit_small_patch16_224',
    num_classes=10,
    pretrained=None,
    label_smoothing=0.1,
    model_kwargs=dict(img_size=32, patch_size=4),
    data_preprocessor=dict(
        type='ImageClsPreprocessor',
        mean=[0.4914, 0.4822, 0.4465],
        std=[0.2470, 0.2435, 0.2616],
    ),
)

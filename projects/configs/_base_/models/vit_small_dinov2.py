# ViT-Small with 14x14 patches and DINOv2's weights (timm's hub; `pretrained` takes a local file, too), at
# 112x112: small images are enlarged. 21.6 M parameters.
custom_imports = dict(imports=['projects.prune_plugin', 'projects.vit'], allow_failed_imports=False)

model = dict(
    type='TimmClassifier',
    arch='vit_small_patch14_dinov2',
    num_classes=10,
    pretrained=True,
    model_kwargs=dict(img_size=112),
    data_preprocessor=dict(
        type='ImageClsPreprocessor',
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
    ),
)

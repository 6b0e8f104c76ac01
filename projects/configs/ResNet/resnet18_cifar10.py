# ResNet-18 for images of 32 x 32, 11,173,962 parameters, from scratch.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/sgd_182e.py',
]
custom_imports = dict(imports=['projects.prune_plugin', 'projects.vit'], allow_failed_imports=False)

model = dict(
    type='TimmClassifier',
    arch='resnet18',
    num_classes=10,
    cifar_stem=True,
    data_preprocessor=dict(
        type='ImageClsPreprocessor',
        mean=[0.4914, 0.4822, 0.4465],
        std=[0.2470, 0.2435, 0.2616],
    ),
)

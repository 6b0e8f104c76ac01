_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/vit_small_32_100.py',
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/adamw_100e.py',
]

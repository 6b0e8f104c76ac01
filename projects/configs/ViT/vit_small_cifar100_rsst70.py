_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/vit_small_32_100.py',
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/sgd_states.py',
    '../_base_/prune/ticket_rsst.py',
]
model = dict(label_smoothing=0.0)

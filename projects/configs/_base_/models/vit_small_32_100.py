# The same for CIFAR-100, 21,376,996 parameters.
_base_ = './vit_small_32.py'

model = dict(
    num_classes=100,
    data_preprocessor=dict(mean=[0.5071, 0.4865, 0.4409], std=[0.2673, 0.2564, 0.2762]),
)

"""The same with 30 % of its parameters removed. ``custom_imports`` replaces what the base has."""

_base_ = ['./driver.py']
custom_imports = dict(imports=['mm_prune', 'projects.mmdet3d_plugin'], allow_failed_imports=False)
runner_type = 'PruneRunner'
prune_cfg = dict(
    budget=dict(type='params', ratio=0.3),
    recovery=dict(epochs=1),
    profile=dict(input_shape=[3, 16, 16], seconds=0.1, batch_size=2),
)

# Three layers of ten as a whole, by what the loss says of each.
_base_ = './llm_global.py'
prune_cfg = dict(
    units=[dict(type='PreNormLayers')],
    budget=dict(type='units', ratio=0.3),
    compensation=None,
)

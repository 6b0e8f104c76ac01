# As many heads and neurons as go before top-1 accuracy is more than one point below the dense model's.
_base_ = './vit_tiny_digits.py'
prune_cfg = dict(
    units=[dict(type='AttentionHeads'), dict(type='FFNNeurons')],
    criterion=dict(type='Taylor'),
    budget=dict(type='metric', metric='top1', max_drop=1.0),
)

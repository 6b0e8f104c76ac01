# Python's own documentation, which is always there: what the demo falls back to without WikiText-2.
# Every split is the same text, so figures only serve comparisons.
_base_ = './wikitext2_small.py'

train_dataloader = dict(dataset=dict(source='pydoc'))
val_dataloader = dict(dataset=dict(source='pydoc'))
test_dataloader = dict(dataset=dict(source='pydoc'))
calibration_dataloader = dict(dataset=dict(source='pydoc'))

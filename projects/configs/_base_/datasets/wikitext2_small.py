# A part of WikiText-2 that a CPU can do: ten windows of 512 tokens of the test split to evaluate, 32
# random ones of the valid split to calibrate, and that split to train.
_base_ = './wikitext2.py'
window = 512

train_dataloader = dict(dataset=dict(split='valid', window=window))
val_dataloader = dict(dataset=dict(split='test', window=window, max_windows=10))
test_dataloader = val_dataloader
calibration_dataloader = dict(dataset=dict(split='valid', window=window, num_windows=32))

# Texts of your own: every file of the folders train, valid and test in data_root (TEXT_ROOT). Windows
# of 512 tokens.
_base_ = './wikitext2_small.py'
data_root = '{{$TEXT_ROOT:data/text}}'
source = dict(_delete_=True, files=dict(train='train', valid='valid', test='test'))
changed = dict(source=source, data_root=data_root)

train_dataloader = dict(dataset=dict(changed, split='train'))
val_dataloader = dict(dataset=dict(changed, split='valid', max_windows=None))
test_dataloader = dict(dataset=dict(changed, split='test', max_windows=None))
calibration_dataloader = dict(dataset=dict(changed, split='train'))

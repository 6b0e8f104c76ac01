# C4's English part, the first shards of train and validation from the hub, or c4-train.*.json.gz and
# c4-validation.*.json.gz in data_root. Windows of 2,048 tokens; calibration as in SparseGPT.
_base_ = './wikitext2.py'
data_root = '{{$C4_ROOT:data/c4}}'
shards = dict(
    train='en/c4-train.00000-of-01024.json.gz',
    valid='en/c4-validation.00000-of-00008.json.gz',
    test='en/c4-validation.00000-of-00008.json.gz',
)
source = dict(
    _delete_=True,
    files=dict(
        train='c4-train.*.json.gz', valid='c4-validation.*.json.gz', test='c4-validation.*.json.gz'
    ),
    hub=dict(path='allenai/c4', data_files=shards),
)
changed = dict(source=source, data_root=data_root, max_rows=5000)

train_dataloader = dict(dataset=changed)
val_dataloader = dict(dataset=dict(changed, max_windows=256))
test_dataloader = val_dataloader
calibration_dataloader = dict(dataset=changed)

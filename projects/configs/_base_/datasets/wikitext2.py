# WikiText-2 raw, its files wiki.{train,valid,test}.raw in data_root, or else from the hub. Windows of
# 2,048 tokens as in the papers. The model's config sets the tokenizers.
data_root = '{{$WIKITEXT2_ROOT:data/wikitext2}}'
window = 2048
source = dict(
    files=dict(train='wiki.train.raw', valid='wiki.valid.raw', test='wiki.test.raw'),
    rows='lines',
    hub=dict(path='Salesforce/wikitext', name='wikitext-2-raw-v1'),
)
windows = dict(type='TokenWindows', source=source, data_root=data_root, window=window)

train_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(windows, split='train'),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(windows, split='valid'),
)
test_dataloader = dict(val_dataloader, dataset=dict(windows, split='test'))
# What pruning looks at: random windows of the training text.
calibration_dataloader = dict(
    train_dataloader,
    dataset=dict(windows, split='train', starts='random', num_windows=128, seed=0),
)

val_evaluator = dict(type='Perplexity')
test_evaluator = val_evaluator

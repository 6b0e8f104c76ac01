_base_ = ['./vit_tiny_digits.py', '../_base_/prune/ticket_refill.py']
train_cfg = dict(type='IterativePruneLoop', max_epochs=8)
param_scheduler = [dict(type='LinearLR', start_factor=0.1, end=2, convert_to_iter_based=True)]
prune_cfg = dict(schedule=dict(rounds=4))
